"""A service dies by SIGKILL at every place where it may have done one half of something."""

import pytest

from tests.faults.breaking import died, dying_at, kill
from tests.faults.town import a_town
from whimbrel_cli.stack.mesh import Mesh

MESSAGE_POINTS = {
    "accept.before_commit": 3,
    "accept.after_commit": 3,
    "accept.before_push": 5,
    "ack.before_commit": 3,
    "ack.after_commit": 3,
    "relay.entry_taken": 2,
    "relay.copy_written": 2,
}
GATEWAY_POINTS = {
    "send.received": 20,
    "send.before_forward": 20,
    "accepted.before_device": 20,
    "deliver.before_write": 20,
    "ack.before_forward": 10,
    "registry.after_claim": 1,
}


@pytest.mark.parametrize(("point", "count"), MESSAGE_POINTS.items())
async def test_a_message_instance_that_dies_loses_and_doubles_nothing(
    mesh: Mesh, point: str, count: int
) -> None:
    async with dying_at(mesh, "message-1", point, count=count):
        # So many that some of their slots fall to the instance, whatever its name is this time.
        async with a_town(mesh, people=12) as town:
            town.write(300)

            await died(mesh, "message-1")
            await town.settled()

        await town.check()


@pytest.mark.parametrize(("point", "count"), GATEWAY_POINTS.items())
async def test_a_gateway_that_dies_loses_and_doubles_nothing(
    mesh: Mesh, point: str, count: int
) -> None:
    async with dying_at(mesh, "gateway-1", point, count=count):
        async with a_town(mesh) as town:
            town.write(300)

            await died(mesh, "gateway-1")
            await town.settled()

        await town.check()


async def test_a_gateway_that_dies_while_it_is_taken_down_loses_and_doubles_nothing(
    mesh: Mesh,
) -> None:
    async with dying_at(mesh, "gateway-1", "drain.during", count=2):
        async with a_town(mesh) as town:
            town.write(200)
            await town.has_accepted(50)

            await mesh.stop("gateway-1")
            await died(mesh, "gateway-1")
            await town.settled()

        await town.check()


@pytest.mark.parametrize("dies", ["gateway-1", "message-1", "message-2"])
async def test_a_queue_whose_draining_is_cut_off_is_drained_to_the_end(
    mesh: Mesh, dies: str
) -> None:
    async with a_town(mesh, people=4, window=50) as town:
        reader, *writers = town.people
        await town.goes_offline(reader)
        for number in range(1200):
            town.write_one(writers[number % len(writers)], reader)
        await town.has_accepted(1200)

        town.comes_online(reader)
        await town.has_received(reader, 300)
        await kill(mesh, dies)
        await mesh.start(dies)
        await town.settled()

    await town.check()
