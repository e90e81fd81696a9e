"""Live pushes are hints: lost, late and crossed ones change nothing but the delay."""

from collections.abc import Sequence

from tests.faults.proxy import MessageProxy, Passes, proxied_mesh
from tests.faults.town import a_town

HEADS_SOON = {"WHIMBREL_GATEWAY_HEADS_INTERVAL": "PT2S"}


def only(passes: Passes, proxies: Sequence[MessageProxy]) -> None:
    for proxy in proxies:
        proxy.passes = passes


async def test_messages_whose_pushes_are_all_lost_arrive_within_thirty_seconds() -> None:
    async with proxied_mesh() as (mesh, proxies):
        only(lambda event: not event.HasField("deliver"), proxies)
        async with a_town(mesh) as town:
            town.write(100)

            await town.settled(within=35)

            assert sum(proxy.dropped for proxy in proxies) > 50
        await town.check(longest_wait=30)


async def test_lost_pushes_of_all_kinds_heal_by_the_comparison_of_heads() -> None:
    async with proxied_mesh(env=HEADS_SOON) as (mesh, proxies):
        only(lambda _event: False, proxies)
        async with a_town(mesh) as town:
            town.write(200)

            await town.settled()

            assert sum(proxy.dropped for proxy in proxies) > 200
        await town.check(longest_wait=4)


async def test_pushes_that_get_lost_at_random_change_no_order() -> None:
    async with proxied_mesh(env=HEADS_SOON) as (mesh, proxies):
        async with a_town(mesh) as town:
            only(lambda _event: town.chance.random() < 0.7, proxies)
            town.write(600)

            await town.settled()

        await town.check(longest_wait=4)


async def test_without_redis_lost_pushes_heal_within_two_seconds() -> None:
    async with proxied_mesh() as (mesh, proxies):
        async with a_town(mesh) as town:
            only(lambda _event: False, proxies)
            mesh.kill("valkey")
            await mesh.ended("valkey")
            await town.lives_for(2)  # a gateway looks for Redis every 0.5 s
            town.write(200)

            await town.settled()

        await town.check(longest_wait=2.5)
