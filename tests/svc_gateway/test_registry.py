"""The registry, in Redis and in memory alike: fenced by the epoch, deleted by its owner only."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from mesh.ids import new_ulid
from mesh.redis import open_redis
from svc_gateway.registry import Claim, Claimed, RedisRegistry, Route, Unreachable
from tests.svc_gateway.fake_registry import MemoryRegistry

MakeRegistry = Callable[[str], RedisRegistry | MemoryRegistry]

TTL = timedelta(seconds=90)


@pytest.fixture
async def redis(redis_url: str):
    async with open_redis(redis_url, wait=timedelta(seconds=30)) as redis:
        yield redis


@pytest.fixture(params=["memory", "redis"])
async def registry_of(request: pytest.FixtureRequest) -> AsyncIterator[MakeRegistry]:
    """`registry_of("gateway-1")`: all of them share one store."""
    if request.param == "memory":
        entries: dict = {}
        yield lambda instance_id: MemoryRegistry(instance_id, entries)
        return
    async with open_redis(request.getfixturevalue("redis_url")) as redis:
        yield lambda instance_id: RedisRegistry(
            redis, prefix="t:", instance_id=instance_id, ttl=TTL
        )


def a_route(epoch: int, user_id: bytes | None = None) -> Route:
    return Route((user_id or new_ulid(), 1), epoch)


async def test_a_first_claim_takes_and_a_second_keeps(registry_of: MakeRegistry) -> None:
    registry, route = registry_of("a"), a_route(3)

    assert await registry.claim([route]) == [Claim(Claimed.TAKEN, 3)]
    assert await registry.claim([route]) == [Claim(Claimed.KEPT, 3)]


async def test_a_zombie_that_registers_again_loses(registry_of: MakeRegistry) -> None:
    old, new = registry_of("old"), registry_of("new")
    user_id = new_ulid()
    await old.claim([a_route(3, user_id)])
    await new.claim([a_route(4, user_id)])

    assert await old.claim([a_route(3, user_id)]) == [Claim(Claimed.LOST, 4)]
    assert await new.claim([a_route(4, user_id)]) == [Claim(Claimed.KEPT, 4)]


async def test_only_its_owner_deletes_an_entry(registry_of: MakeRegistry) -> None:
    old, new = registry_of("old"), registry_of("new")
    user_id = new_ulid()
    await old.claim([a_route(3, user_id)])
    await new.claim([a_route(4, user_id)])

    await old.release([a_route(3, user_id)])

    assert await new.claim([a_route(4, user_id)]) == [Claim(Claimed.KEPT, 4)]


async def test_a_released_entry_is_gone(registry_of: MakeRegistry) -> None:
    registry, route = registry_of("a"), a_route(3)
    await registry.claim([route])

    await registry.release([route])

    assert await registry.claim([route]) == [Claim(Claimed.TAKEN, 3)]


async def test_each_of_many_claims_has_its_own_outcome(registry_of: MakeRegistry) -> None:
    one, other = registry_of("one"), registry_of("other")
    routes = [a_route(5) for _ in range(3)]
    await one.claim(routes)
    older = Route(routes[0].address, 4)
    newer = Route(routes[2].address, 6)

    claims = await other.claim([older, routes[1], newer])

    assert [claim.outcome for claim in claims if claim] == [
        Claimed.LOST,
        Claimed.TAKEN,
        Claimed.TAKEN,
    ]


async def test_the_canary_tells_a_flush(registry_of: MakeRegistry) -> None:
    registry = registry_of("a")

    assert await registry.renew_canary() is False
    assert await registry.renew_canary() is True
    await registry.remove_canary()
    assert await registry.renew_canary() is False


async def test_entries_look_as_the_message_service_reads_them(redis, redis_url: str) -> None:
    registry = RedisRegistry(redis, prefix="w:", instance_id="gateway-7", ttl=TTL)
    user_id = new_ulid()

    await registry.claim([Route((user_id, 2), 41)])

    key = f"w:session:{{{user_id.hex()}}}:2"
    assert await redis.get(key) == b"41:gateway-7"
    assert 85 <= await redis.ttl(key) <= 90


async def test_a_flush_forgets_the_entries_and_the_scripts(redis) -> None:
    registry = RedisRegistry(redis, prefix="w:", instance_id="a", ttl=TTL)
    route = a_route(3)
    await registry.claim([route])

    await redis.flushdb()
    await redis.script_flush()

    assert await registry.claim([route]) == [Claim(Claimed.TAKEN, 3)]
    await redis.script_flush()
    await registry.release([route])
    assert await registry.claim([route]) == [Claim(Claimed.TAKEN, 3)]


async def test_a_redis_that_is_away_is_unreachable(own_valkey) -> None:
    async with open_redis(own_valkey.address) as redis:
        registry = RedisRegistry(redis, prefix="w:", instance_id="a", ttl=TTL)
        await registry.claim([a_route(1)])
        await own_valkey.kill()

        with pytest.raises(Unreachable):
            await registry.claim([a_route(1)])
        with pytest.raises(Unreachable):
            await registry.renew_canary()


async def test_300_devices_that_reconnect_fast_end_where_they_are(redis) -> None:
    gateways = [
        RedisRegistry(redis, prefix="w:", instance_id=f"gateway-{number}", ttl=TTL)
        for number in range(4)
    ]
    chance = random.Random(7)
    users = [new_ulid() for _ in range(300)]
    homes = {user_id: [chance.randrange(4) for _ in range(10)] for user_id in users}

    async def reconnect(user_id: bytes) -> None:
        """Ten sessions; each claim and each late clean-up is on its way at the same time."""
        async with asyncio.TaskGroup() as tasks:
            for number, home in enumerate(homes[user_id]):
                route = Route((user_id, 1), number + 1)
                tasks.create_task(session(gateways[home], route, stays=number == 9))

    at_once = asyncio.Semaphore(64)

    async def session(registry: RedisRegistry, route: Route, *, stays: bool) -> None:
        async with at_once:
            await registry.claim([route])
        if not stays:
            async with at_once:
                await registry.release([route])

    await asyncio.gather(*(reconnect(user_id) for user_id in users))

    for user_id in users:
        held = await redis.get(f"w:session:{{{user_id.hex()}}}:1")
        assert held == f"10:gateway-{homes[user_id][9]}".encode()
