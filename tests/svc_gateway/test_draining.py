"""An instance that is taken down finishes what is in flight and sends its devices elsewhere."""

import asyncio

import grpc

from mesh.clock import SystemClock
from mesh.errors import failure_of
from svc_gateway.session import Phase
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.fake_message import until


async def test_devices_are_told_to_come_back_elsewhere_and_routes_are_removed(edge: Edge) -> None:
    await edge.start(drain_spread=0.1)
    devices = [await edge.connect() for _ in range(10)]
    await until(lambda: len(edge.registry.entries) == 10)

    await edge.gateway.drain()

    for device in devices:
        failure = await device.ended()
        assert failure is not None
        assert failure.code() is grpc.StatusCode.UNAVAILABLE
        assert failure_of(failure).reason == "SERVER_DRAINING"
        assert device.all("go_away")[0].HasField("reconnect_after")
    assert edge.registry.entries == {}
    assert not edge.gateway.servicer.streams


class Looks(SystemClock):
    """Counts the rounds of the canary, which sleeps between them."""

    every, rounds = 0.002, 0

    async def sleep(self, seconds: float) -> None:
        self.rounds += seconds == self.every
        await super().sleep(seconds)


async def test_nothing_is_written_to_the_registry_once_it_was_left(edge: Edge) -> None:
    await edge.start(drain_spread=0, canary_interval=Looks.every)
    clock = edge.gateway.registrar._clock = Looks()
    await edge.connect()
    await until(lambda: edge.registry.entries)
    release, begun, go_on = edge.registry.release, asyncio.Event(), asyncio.Event()
    looks = []

    async def slow(routes) -> None:
        begun.set()
        await go_on.wait()
        await release(routes)

    edge.registry.release = slow
    draining = asyncio.create_task(edge.gateway.drain())
    await begun.wait()
    go_on.set()
    await draining
    edge.registry.renew_canary = lambda: looks.append(1)
    seen = clock.rounds
    await until(lambda: clock.rounds >= seen + 3)

    assert edge.registry.entries == {}
    assert not edge.registry.has_canary
    assert looks == []


async def test_sends_that_are_in_flight_are_answered_first(edge: Edge) -> None:
    await edge.start(drain_spread=0.1)
    alice, bob = await edge.connect(), await edge.connect()
    edge.message.service.may_write.clear()
    await alice.send(bob.user_id)
    await until(lambda: edge.message.service.asked("send"))
    [session] = [s.session for s in edge.gateway.sessions if s.device.user_id == alice.user_id]

    draining = asyncio.create_task(edge.gateway.drain())
    await until(lambda: session.phase is not Phase.OPEN)
    edge.message.service.may_write.set()
    await draining
    await alice.ended()

    assert alice.kinds[-2:] == ["accepted", "go_away"]


async def test_goodbyes_are_spread(edge: Edge) -> None:
    await edge.start(drain_spread=1)
    loop = asyncio.get_running_loop()
    devices = [await edge.connect() for _ in range(20)]

    started = loop.time()
    ends: list[float] = []

    async def ended(device) -> None:
        await device.ended()
        ends.append(loop.time() - started)

    await asyncio.gather(edge.gateway.drain(), *(ended(device) for device in devices))

    assert max(ends) - min(ends) > 0.7


async def test_no_new_stream_is_let_in(edge: Edge) -> None:
    await edge.start(drain_spread=0)
    await edge.gateway.drain()

    late = edge.device()
    late.listen()

    failure = await late.ended()
    assert failure is not None
    assert failure_of(failure).reason == "SERVER_DRAINING"


async def test_a_session_too_many_is_refused(edge: Edge) -> None:
    await edge.start(max_sessions=1)
    await edge.connect()

    late = edge.device()
    late.listen()

    failure = await late.ended()
    assert failure is not None
    assert failure_of(failure).reason == "OVERLOADED"
    assert failure_of(failure).retry_after is not None
