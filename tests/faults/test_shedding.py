"""A gateway that comes gets its share of the sessions, while people go on writing."""

from collections import Counter

from tests.faults.breaking import restarted
from tests.faults.town import Town, a_town, eventually
from whimbrel_cli.stack.mesh import Mesh

_EAGER = {"WHIMBREL_GATEWAY_SHED_FLOOR": "1", "WHIMBREL_GATEWAY_SHED_INTERVAL": "PT0.5S"}


async def test_sessions_that_are_all_at_one_gateway_move_to_the_other_and_nothing_is_lost(
    mesh: Mesh,
) -> None:
    async with restarted(mesh, "gateway-1", "gateway-2", env=_EAGER):
        await mesh.stop("gateway-2")
        async with a_town(mesh, people=8) as town:
            one, other = mesh.gateway_addresses
            town.write(50)
            await eventually(lambda: _sessions(town) == {one: 8})

            await mesh.start("gateway-2")
            town.write(200)
            await eventually(lambda: _sessions(town) == {one: 4, other: 4})
            town.write(100)
            await town.settled()

            # Phones that are cut short as they write do not learn why: their gateway tells.
            assert "sending sessions to other gateways" in mesh.log_of("gateway-1").read_text()

        await town.check()


def _sessions(town: Town) -> Counter[str]:
    """How many people are where."""
    return Counter(person.gateway for person in town.people if person.gateway is not None)
