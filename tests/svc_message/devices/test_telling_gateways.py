"""How gateways are told of what concerns a device: its revocation, and keys that run out."""

import asyncio

import pytest

from mesh.ids import new_ulid
from mesh.telemetry import OFF
from svc_message import routing
from svc_message.link import GatewayLink
from svc_message.routing import Router
from whimbrel.error.v1 import reason_pb2


class Registry:
    """A registry that is away: it knows nobody, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0

    async def routes(self, devices):
        self.asked += 1
        return {}


class Wire:
    """What a gateway reads; while `stuck`, nothing is written."""

    def __init__(self) -> None:
        self.events: list = []
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def write(self, frame) -> None:
        await self.flowing.wait()
        self.events += frame.events


@pytest.fixture
async def attached():
    """`router, registry, wires`: a router with three gateways attached."""
    registry = Registry()
    router, wires, writers = Router(registry), [], []
    for number in range(3):
        link, wire = GatewayLink(f"gateway-{number}", OFF), Wire()
        router.attach(link)
        wires.append(wire)
        writers.append(asyncio.create_task(link.write_to(wire.write)))
    routing_task = asyncio.create_task(router.run())
    yield router, registry, wires
    for task in (*writers, routing_task):
        task.cancel()
    await asyncio.gather(*writers, routing_task, return_exceptions=True)


async def test_every_gateway_is_told_of_a_revocation_without_a_look_up(attached) -> None:
    router, registry, wires = attached
    device = (new_ulid(), 2)

    await router.revoke(device, 7)

    for wire in wires:
        [event] = wire.events
        end = event.end
        assert (end.device.user_id, end.device.device_id, end.below_epoch) == (*device, 7)
        assert end.reason == reason_pb2.ERROR_REASON_DEVICE_REVOKED
    assert registry.asked == 0


async def test_a_gateway_that_does_not_read_holds_a_revocation_up_for_two_seconds_at_most(
    attached, monkeypatch
) -> None:
    router, _, wires = attached
    monkeypatch.setattr(routing, "_MOST_REVOKING", 0.05)
    wires[1].flowing.clear()

    await router.revoke((new_ulid(), 2), 7)

    assert [len(wire.events) for wire in wires] == [1, 0, 1]
    wires[1].flowing.set()
    await router.revoke((new_ulid(), 3), 8)
    assert [len(wire.events) for wire in wires] == [2, 2, 2]


async def test_without_gateways_nobody_waits() -> None:
    await Router(Registry()).revoke((new_ulid(), 2), 7)


async def test_a_gateway_that_attaches_later_is_told_of_the_latest_revocations() -> None:
    router, device = Router(Registry()), (new_ulid(), 2)
    for number in range(600):
        await router.revoke((new_ulid(), 2), number)
    await router.revoke(device, 7)
    await router.revoke(device, 6)

    link, wire = GatewayLink("late", OFF), Wire()
    router.attach(link)
    link.close()
    await link.write_to(wire.write)

    assert len(wire.events) == 500
    last = wire.events[-1].end
    assert (last.device.user_id, last.device.device_id, last.below_epoch) == (*device, 7)


async def test_low_prekeys_go_to_the_gateway_of_the_device(attached) -> None:
    router, _, wires = attached
    device = (new_ulid(), 3)
    router.learn(device, router._gateways["gateway-1"])

    router.low_prekeys(device, 19, 0)
    await router.revoke((new_ulid(), 9), 1)  # so that all that was pushed is written

    [low] = [e.low_prekeys for e in wires[1].events if e.WhichOneof("event") == "low_prekeys"]
    assert (low.device.device_id, low.one_time_prekeys, low.one_time_kem_prekeys) == (3, 19, 0)
    assert len(wires[0].events) == len(wires[2].events) == 1
