"""Unary calls of clients that other services answer: passed on as bytes, from a closed list."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import grpc

from mesh.access import Access, Caller, access_of
from mesh.errors import (
    Internal,
    PassedOn,
    Unavailable,
    Unimplemented,
    WhimbrelError,
    failure_of,
)
from mesh.ids import random_id, ulid_text
from mesh.interceptors import refusal
from mesh.telemetry import OFF, Telemetry
from svc_gateway.authenticator import Authenticator
from svc_gateway.edge import Device
from svc_gateway.limits import Doorkeeper
from whimbrel.channel.v1 import channel_pb2
from whimbrel.group.v1 import group_pb2
from whimbrel.identity.v1 import device_pb2, identity_pb2, keys_pb2, report_pb2
from whimbrel.media.v1 import media_pb2
from whimbrel.push.v1 import push_pb2

_MOST_SECONDS = 5.0
_TRIES = 2  # the calls on the list are idempotent
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


# The protos whose rpcs devices call here and other services answer.
_FILES = (
    identity_pb2,
    device_pb2,
    keys_pb2,
    report_pb2,
    group_pb2,
    channel_pb2,
    media_pb2,
    push_pb2,
)
# The closed list: what their option `access` opens to devices.
METHODS = {
    method: access
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method, access in access_of(service).items()
    if access.is_for_clients
}


class Instances(Protocol):
    """The instances of a service."""

    def ranked(self, key: int | bytes) -> list[str]:
        """Those that may be called, the key's own first, then in the order of fail-over."""

    def channel(self, instance_id: str) -> grpc.aio.Channel:
        """The way to one; raises Unavailable if it is gone."""


class MethodUnknown(Unimplemented):
    """The method is not offered at this address."""

    reason = "METHOD_UNKNOWN"


class Forwarder(grpc.GenericRpcHandler):
    """Answers for every method that no other handler of the listener knows.

    `services` are those that answer, by name.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        services: Mapping[str, Instances],
        doorkeeper: Doorkeeper,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._authenticator = authenticator
        self._telemetry = telemetry
        self._doorkeeper = doorkeeper
        self._services = services
        self._unknown = refusal(MethodUnknown("the method is not offered at this address"))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        access = METHODS.get(method)
        if access is None:
            return self._unknown

        async def behaviour(request: bytes, context: Any) -> bytes:
            return await self._forward(method, access, request, context)

        return grpc.unary_unary_rpc_method_handler(behaviour)

    async def _forward(self, method: str, access: Access, request: bytes, context: Any) -> bytes:
        needs_token = Caller.ANYONE not in access.callers
        caller = self._authenticator.device_of(context) if needs_token else None
        await self._doorkeeper.admit(method, context)
        # Nothing of the client's own metadata goes on: only who it has proved to be, and whether
        # the call is traced, which is decided here.
        metadata = (*_identity(caller), *_traced(self._telemetry))
        loop = asyncio.get_running_loop()
        end_by = loop.time() + _seconds_left(context)
        for channel in _channels(self._services[access.answered_by], caller):
            call: Any = channel.unary_unary(method)
            try:
                answer: bytes = await call(request, metadata=metadata, timeout=end_by - loop.time())
                return answer
            except grpc.aio.AioRpcError as error:
                failed = error
            if failed.code() is not grpc.StatusCode.UNAVAILABLE:
                break
        raise _passed_on(failed)


def _channels(instances: Instances, caller: Device | None) -> Iterator[grpc.aio.Channel]:
    ranked = instances.ranked(caller.user_id if caller else random_id())
    if not ranked:
        raise Unavailable("no instance of the service is known")
    for instance_id in (ranked * _TRIES)[:_TRIES]:
        yield instances.channel(instance_id)


def _identity(caller: Device | None) -> tuple[tuple[str, str], ...]:
    if caller is None:
        return ()
    return (
        ("whimbrel-user-id", ulid_text(caller.user_id)),
        ("whimbrel-device-id", str(caller.address[1])),
        ("whimbrel-credential-version", str(caller.credential_version)),
    )


def _traced(telemetry: Telemetry) -> tuple[tuple[str, str], ...]:
    at = telemetry.trace_context()
    return (("traceparent", at),) if at else ()


def _seconds_left(context: Any) -> float:
    left: float | None = context.time_remaining()
    return _MOST_SECONDS if left is None else min(left, _MOST_SECONDS)


def _passed_on(failed: grpc.aio.AioRpcError) -> WhimbrelError:
    """The call's end as the service ended it; what it did not explain, we do."""
    failure = failure_of(failed)
    if failure.reason:
        return PassedOn(failed.details() or "", failure)
    if failed.code() in _AWAY:
        return Unavailable("the service cannot be reached")
    return Internal("internal error")
