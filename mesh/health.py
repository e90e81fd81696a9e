"""The instance's health as grpc.health.v1; knows names and states, not what they stand for.

The overall entry "" is readiness. It fails only for causes inside this process: it is starting, it
is draining, or its loop is stuck (then no answer comes at all). A shared dependency has an entry of
its own, such as `redis` or `shard/a`: one that is down must not take every instance out.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.errors import Unavailable

Status = health_pb2.HealthCheckResponse

_OVERALL = ""


class Health(health_pb2_grpc.HealthServicer):
    """Readiness and named dependencies; setting them never waits for those who watch."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {_OVERALL: Status.NOT_SERVING}
        self._changed = asyncio.Event()
        self._is_draining = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it there."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def ready(self) -> None:
        """All that this process must do before it takes calls is done."""
        if not self._is_draining:
            self._set(_OVERALL, is_well=True)

    def draining(self) -> None:
        """No new calls, please. There is no way back."""
        self._is_draining = True
        self._set(_OVERALL, is_well=False)

    def dependency(self, name: str, *, is_well: bool) -> None:
        """Tell how a shared dependency does; readiness does not change."""
        if name == _OVERALL:
            raise ValueError("the overall entry is no dependency")
        self._set(name, is_well=is_well)

    @property
    def states(self) -> Mapping[str, bool]:
        """Every entry and whether it is well."""
        return {name: state == Status.SERVING for name, state in self._states.items()}

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Status:
        state = self._states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such entry")
        return Status(status=state)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        told = None
        while True:
            changed = self._changed  # taken before the state is read, so no change is missed
            state = self._states.get(request.service, Status.SERVICE_UNKNOWN)
            if state != told:
                await context.write(Status(status=state))
                told = state
            await changed.wait()

    def _set(self, name: str, *, is_well: bool) -> None:
        state = Status.SERVING if is_well else Status.NOT_SERVING
        if self._states.get(name) != state:
            self._states[name] = state
            self._changed.set()
            self._changed = asyncio.Event()


async def check(channel: grpc.aio.Channel, name: str = _OVERALL, *, within: float = 1.0) -> bool:
    """Ask an instance how it does; Unavailable if it does not answer in time."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=within)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return False
        raise Unavailable("the instance does not answer") from error
    return bool(answer.status == Status.SERVING)
