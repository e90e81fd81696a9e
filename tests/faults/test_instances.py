"""Instances that die, stand still, drain or come back, under load."""

from tests.faults.breaking import frozen, kill, start_attached
from tests.faults.town import a_town
from whimbrel_cli.stack.mesh import Mesh


async def test_killing_each_instance_in_turn_loses_and_doubles_nothing(mesh: Mesh) -> None:
    async with a_town(mesh) as town:
        for round_, name in enumerate(("message-1", "gateway-1", "message-2", "gateway-2")):
            town.write(150)
            await town.has_accepted(150 * round_ + 30)
            await kill(mesh, name)
            await mesh.start(name)

        await town.settled()

    await town.check()


async def test_a_roll_out_refuses_no_send_for_good(mesh: Mesh) -> None:
    async with a_town(mesh) as town:
        for round_, name in enumerate(("message-1", "message-2", "gateway-1", "gateway-2")):
            town.write(150)
            await town.has_accepted(150 * round_ + 30)
            await mesh.stop(name)
            assert mesh.exit_code_of(name) == 0
            await mesh.start(name)

        await town.settled()

    await town.check()


async def test_both_message_instances_may_be_gone_for_a_while(mesh: Mesh) -> None:
    async with a_town(mesh) as town:
        town.write(200)
        await town.has_accepted(50)
        await kill(mesh, "message-1")
        await kill(mesh, "message-2")
        town.write(100)
        await mesh.start("message-2")
        await mesh.start("message-1")

        await town.settled()

    await town.check()


async def test_a_stopped_message_instance_is_left_within_five_seconds(mesh: Mesh) -> None:
    """Also one that has just started again, while the lease of its predecessor lasts."""
    await kill(mesh, "message-1")
    await start_attached(mesh, "message-1")
    async with a_town(mesh) as town:
        town.write(200)
        await town.has_accepted(50)
        with frozen(mesh, "message-1"):
            town.write(100)
            await town.has_accepted(300, within=7)

            await town.settled()

    await town.check()


async def test_what_a_stopped_instance_still_does_when_it_goes_on_changes_nothing(
    mesh: Mesh,
) -> None:
    async with a_town(mesh) as town:
        for round_ in range(3):
            town.write(100)
            await town.has_accepted(100 * round_ + 30)
            with frozen(mesh, "message-2"):
                await town.has_accepted(100 * round_ + 100, within=10)

        await town.settled(within=40)

    await town.check()


async def test_an_instance_that_starts_again_at_its_address_is_pushed_through(mesh: Mesh) -> None:
    """Until the old lease ends, etcd names two instances."""
    async with a_town(mesh) as town:
        await kill(mesh, "message-1")
        await start_attached(mesh, "message-1")

        town.write(200)
        await town.settled()

    await town.check(longest_wait=2)
