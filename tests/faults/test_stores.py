"""Postgres, Redis and etcd crash, vanish and forget, while people write to each other."""

from collections.abc import Callable
from functools import partial

import grpc
import redis.asyncio as redis

from mesh.health import check
from mesh.ids import slot_of
from tests.e2e.meshes import own_mesh
from tests.faults.breaking import kill
from tests.faults.history import Ended, Refused
from tests.faults.phone import Phone
from tests.faults.town import Town, a_town, eventually
from tests.tls import calling_as
from whimbrel_cli.stack.mesh import Mesh

FIRST_OF_SHARD_1 = 8192


async def test_a_crash_of_postgres_loses_nothing(mesh: Mesh) -> None:
    async with a_town(mesh) as town:
        for round_ in range(2):
            town.write(150)
            await town.has_accepted(150 * round_ + 40)
            await kill(mesh, "postgres")
            await mesh.start("postgres")

        await town.settled()

    await town.check()


async def test_postgres_away_for_a_while_refuses_sends_for_now(mesh: Mesh) -> None:
    async with a_town(mesh) as town:
        town.write(100)
        await town.has_accepted(30)
        await kill(mesh, "postgres")
        await eventually(lambda: any(town.history.all(Refused)))
        await mesh.start("postgres")

        await town.settled()

    assert {refused.reason for refused in town.history.all(Refused)} <= {
        "SHARD_UNAVAILABLE",
        "PREVIOUS_NOT_ACCEPTED",
    }
    await town.check()


async def test_one_shard_down_stops_nobody_of_the_other() -> None:
    async with own_mesh(clusters=2) as mesh:
        async with a_town(mesh, people=10) as town:
            here = [person for person in town.people if slot_of(person.user_id) < FIRST_OF_SHARD_1]
            town.write(50)
            await town.settled()
            before = town.accepted
            await kill(mesh, "postgres-2")
            _write_among(town, here, 100)

            await town.has_accepted(before + 100, within=10)
            town.write(100)
            await eventually(lambda: any(town.history.all(Refused)))
            one = partial(calling_as, mesh, "gateway")
            shards = "shard/shard-0", "shard/shard-1", ""
            # A refusal may be the other instance's: this one looks every second.
            await eventually(lambda: is_health(one, [True, False, True], *shards), within=5)
            await mesh.start("postgres-2")
            await town.settled()
            assert await health(one(), "shard/shard-0", "shard/shard-1") == [True, True]

        assert {refused.reason for refused in town.history.all(Refused)} <= {
            "SHARD_UNAVAILABLE",
            "PREVIOUS_NOT_ACCEPTED",
        }
        await town.check(longest_wait=40)


async def test_a_redis_that_is_flushed_again_and_again_loses_nothing(mesh: Mesh) -> None:
    client = redis.from_url(mesh.stack.redis_url)
    async with client, a_town(mesh) as town:
        for round_ in range(10):
            town.write(40)
            await client.flushall()
            await town.has_accepted(40 * round_ + 20)

        await town.settled()

    # A gateway looks every 0.5 s whether Redis still knows it, and spreads what follows over 1 s.
    await town.check(longest_wait=2)


async def test_a_redis_that_dies_and_comes_back_empty_loses_nothing(mesh: Mesh) -> None:
    async with a_town(mesh) as town:
        town.write(200)
        await town.has_accepted(50)
        here = partial(grpc.aio.insecure_channel, mesh.gateway_addresses[0])
        assert await health(here(), "redis") == [True]
        await kill(mesh, "valkey")
        await town.has_accepted(200, within=10)
        town.write(50)
        await eventually(lambda: is_health(here, [False, True], "redis", ""))
        await mesh.start("valkey")
        await eventually(lambda: is_health(here, [True, True], "redis", ""))
        town.write(50)

        await town.settled()

    assert not [one for one in town.history.all(Refused) if one.reason != "PREVIOUS_NOT_ACCEPTED"]
    await town.check(longest_wait=2.5)


async def test_while_etcd_is_away_no_send_fails_and_no_stream_ends(mesh: Mesh) -> None:
    async with a_town(mesh) as town:
        town.write(100)
        await town.has_accepted(30)
        await kill(mesh, "etcd")
        await town.lives_for(12)  # longer than a lease
        town.write(100)
        await town.settled()
        assert not [*town.history.all(Refused), *town.history.all(Ended)]

        await mesh.start("etcd")
        await kill(mesh, "gateway-1")
        await mesh.start("gateway-1")  # it knows nobody but whom etcd names
        town.write(100)
        await town.settled()

    await town.check()


def _write_among(town: Town, people: list[Phone], count: int) -> None:
    for _ in range(count):
        town.write_one(*town.chance.sample(people, 2))


async def health(channel: grpc.aio.Channel, *entries: str) -> list[bool]:
    """What an instance says of these entries."""
    async with channel:
        return [await check(channel, entry, within=5) for entry in entries]


async def is_health(
    of: Callable[[], grpc.aio.Channel], expected: list[bool], *entries: str
) -> bool:
    return await health(of(), *entries) == expected
