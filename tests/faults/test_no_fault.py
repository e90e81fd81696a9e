"""The load and the checker with nothing broken: what they find elsewhere is not their making."""

from tests.faults.town import a_town
from whimbrel_cli.stack.mesh import Mesh


async def test_without_a_fault_everything_holds(mesh: Mesh) -> None:
    async with a_town(mesh, people=6) as town:
        town.write(600)

        await town.settled()

    await town.check(longest_wait=2)
