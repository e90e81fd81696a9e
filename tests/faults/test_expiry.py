"""What is too old is swept from a queue under the eyes of a live session."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.device import Device, a_send
from tests.e2e.people import register_all
from tests.faults.breaking import restarted
from whimbrel_cli.stack.mesh import Mesh

FORGETFUL = {"WHIMBREL_MESSAGE_KEEP_MESSAGES": "PT2S", "WHIMBREL_MESSAGE_SWEEP": "PT0.3S"}
HEADS_SOON = {"WHIMBREL_GATEWAY_HEADS_INTERVAL": "PT0.5S"}


@pytest.fixture
async def forgetful(mesh: Mesh) -> AsyncIterator[Mesh]:
    """A mesh that keeps messages for 2 s in place of 30 days."""
    async with (
        restarted(mesh, "message-1", "message-2", env=FORGETFUL),
        restarted(mesh, "gateway-1", "gateway-2", env=HEADS_SOON),
    ):
        yield mesh


async def test_a_sweep_under_a_live_session_leaves_no_hole_and_caught_up_comes(
    forgetful: Mesh,
) -> None:
    here, there = forgetful.gateway_addresses
    one, other = await register_all(here, 2)
    async with Device(one, here) as sender:
        await sender.hello()
        for number in range(20):
            await sender.accepted(a_send(other.user_id, b"old %d" % number))
        async with Device(other, there) as receiver:
            welcome = await receiver.hello(max_unacked=5)
            await receiver.until(lambda: "caught_up" in receiver.kinds)
            seen = len(receiver.positions)

            await sender.accepted(a_send(other.user_id, b"new"))
            await receiver.until(lambda: b"new" in receiver.bodies)
            await receiver.ack(receiver.positions[-1])

    assert receiver.all("caught_up")[0].pos == welcome.head_pos
    assert seen < 20
    assert receiver.positions == sorted(set(receiver.positions))
    assert receiver.positions[-1] == 21
