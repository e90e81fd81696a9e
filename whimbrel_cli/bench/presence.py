"""Presence: the heartbeats of many people whom nobody watches, and flips that 50 people watch."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from mesh.channels import Channels
from mesh.clock import SystemClock
from mesh.ids import random_id
from mesh.instances import Instance
from mesh.tls import Identity
from svc_gateway.presence import PresenceLimits, Presences
from svc_gateway.stream import DeviceStream
from svc_gateway.tally import Tally
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.presence.v1 import state_pb2
from whimbrel_cli.bench.device import Device
from whimbrel_cli.bench.pairs import percentile
from whimbrel_cli.bench.plan import Person, Plan
from whimbrel_cli.bench.telling import Tell, until
from whimbrel_cli.stack.environment import tls_settings

PEOPLE = 100_000
EVERY_SECONDS = 30.0

_GATEWAYS = 10
_SECONDS = 60.0
_FLIPS = 20


@dataclass(frozen=True, slots=True)
class _Who:
    user_id: bytes


class _Session:
    """What the gateway's half of presence sees of a session that does nothing."""

    def __init__(self) -> None:
        self.device = _Who(random_id())


async def heartbeats(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """The gateways' own code says for each person, once an interval, that they are there.

    Fewer people beat as much faster: what is measured is always the rate of all of them.
    """
    people = plan.messages or PEOPLE
    interval = EVERY_SECONDS * people / PEOPLE
    async with _gateways(plan, timedelta(seconds=interval)) as gateways:
        for number in range(people):
            session = cast("DeviceStream", _Session())
            gateways[number % _GATEWAYS].opened(session)
        await asyncio.sleep(max(2.0, interval / 3))  # all have come
        await tell("open")
        began = time.process_time()
        await asyncio.sleep(max(interval, 3.0))
        used = time.process_time() - began
        await tell("close")
    return {"gateways_cpu_s": used}


@contextlib.asynccontextmanager
async def _gateways(plan: Plan, heartbeat: timedelta) -> AsyncIterator[list[Presences]]:
    identity = Identity(tls_settings(Path(plan.data), "gateway"), "gateway")
    instances = {
        f"presence-{number}": Instance(f"presence-{number}", "presence", address)
        for number, address in enumerate(plan.presence)
    }
    async with asyncio.TaskGroup() as tasks:
        gateways, running = [], []
        for number in range(_GATEWAYS):
            name = f"bench-{number}"
            presences = Presences(
                Channels(identity),
                gateway_id=name,
                limits=PresenceLimits(heartbeat=heartbeat),
                tally=Tally(),
                clock=SystemClock(),
            )
            presences.instances_changed(instances)
            running.append(tasks.create_task(presences.run(), name=name))
            gateways.append(presences)
        await until(
            lambda: all(len(one.open_instances) == len(instances) for one in gateways),
            within=_SECONDS,
        )
        yield gateways
        for task in running:
            task.cancel()
    for presences in gateways:
        await presences.close()


class Watcher(Device):
    """A device with one chat open, which notes when it hears of a flip."""

    def __init__(self, person: Person, address: str) -> None:
        super().__init__(person, address, payload_bytes=0)
        self.state = state_pb2.PRESENCE_STATE_UNSPECIFIED
        self.heard_at = 0.0

    async def watch(self, user_id: bytes) -> None:
        """Open the chat."""
        self._outgoing.events.add().watch.user_ids.append(user_id)
        await self.flush()

    async def _take(self, frame: gateway_pb2.ConnectResponse, skip: int = 0) -> None:
        for event in frame.events[skip:]:
            if event.HasField("presence"):
                self.state, self.heard_at = event.presence.state, time.monotonic()


async def flips(plan: Plan, _tell: Tell) -> Mapping[str, Any]:
    """One person comes and goes; 50 at all gateways are told. From the first word to each of them.

    Coming begins with the call that opens the session, going with the half-close.
    """
    someone, *others = plan.people
    seconds: list[float] = []
    async with _watching(plan, others, someone) as watchers:
        await _told(watchers, state_pb2.PRESENCE_STATE_OFFLINE)
        for number in range(_FLIPS):
            device = Device(someone, plan.gateways[number % 2], payload_bytes=0)
            began = time.monotonic()
            await device.open()
            await _told(watchers, state_pb2.PRESENCE_STATE_ONLINE)
            seconds += [watcher.heard_at - began for watcher in watchers]
            reading = asyncio.create_task(device.run(), name="flipper")
            began = time.monotonic()
            await device.close()
            await reading
            await _told(watchers, state_pb2.PRESENCE_STATE_OFFLINE)
            seconds += [watcher.heard_at - began for watcher in watchers]
    ordered = sorted(seconds)
    return {"p50_ms": percentile(ordered, 50) * 1000, "p99_ms": percentile(ordered, 99) * 1000}


async def _told(watchers: Sequence[Watcher], state: state_pb2.PresenceState.ValueType) -> None:
    await until(lambda: all(one.state == state for one in watchers), within=_SECONDS)


@contextlib.asynccontextmanager
async def _watching(
    plan: Plan, people: Sequence[Person], whom: Person
) -> AsyncIterator[list[Watcher]]:
    gateways = plan.gateways
    watchers = [Watcher(one, gateways[n % len(gateways)]) for n, one in enumerate(people)]
    async with asyncio.TaskGroup() as tasks:
        for watcher in watchers:
            await watcher.open()
            tasks.create_task(watcher.run(), name="watcher")
            await watcher.watch(whom.user_id)
        yield watchers
        for watcher in watchers:
            await watcher.close()
