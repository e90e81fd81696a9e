"""Token buckets: what many instances together may spend, and what happens without Redis."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from mesh.limits import Limit, Limiter, RedisBuckets, Want, read_overrides
from mesh.redis import open_redis
from mesh.testing import ManualClock
from tests.faults.town import eventually
from tests.svc_gateway.fake_buckets import MemoryBuckets

OPEN = Limit(
    name="open", meaning="a", burst=1_000, per_second=50.0, lot=20, fails_open=True, least_burst=5
)
CLOSED = replace(OPEN, name="closed", fails_open=False)
SLOW = replace(OPEN, name="slow", burst=10, per_second=0.001, lot=4)
KNOWN = {limit.name: limit for limit in (OPEN, CLOSED, SLOW)}


def limiter(buckets, clock=None) -> Limiter:
    return Limiter(KNOWN.values(), buckets, clock=clock)


async def spent(limiter: Limiter, limit: str, tries: int, key: str = "k") -> int:
    return sum([await limiter.take([Want(limit, key, 1)]) is None for _ in range(tries)])


async def is_gone(redis, pattern: str) -> bool:
    return not await redis.keys(pattern)


async def passes(limiter: Limiter, limit: str) -> bool:
    return await spent(limiter, limit, 1) == 1


async def micros(redis) -> int:
    seconds, micros = await redis.time()
    return int(seconds) * 1_000_000 + int(micros)


async def test_two_instances_together_overshoot_by_less_than_a_hundredth(redis_url):
    async with open_redis(redis_url) as one, open_redis(redis_url) as other:
        began = await micros(one)
        limiters = [limiter(RedisBuckets(redis, prefix="t:")) for redis in (one, other)]

        taken = sum(
            await asyncio.gather(*(spent(each, "open", 300) for each in limiters for _ in range(4)))
        )

        allowed = OPEN.burst + OPEN.per_second * (await micros(one) - began) / 1_000_000
        # What the lots hold that are not used up is the most that may be missing.
        assert OPEN.burst - 2 * OPEN.lot <= taken <= allowed * 1.01


async def test_a_bucket_fills_again_at_its_rate_and_a_full_one_is_forgotten(redis_url):
    quick = replace(OPEN, burst=10, per_second=100.0, lot=10)
    async with open_redis(redis_url) as redis:
        buckets = RedisBuckets(redis, prefix="t:")
        [first] = await buckets.take([(quick, "k", 1)])
        [second] = await buckets.take([(quick, "k", 10)])
        await eventually(lambda: is_gone(redis, "t:*"))  # it expires when it would be full
        [third] = await buckets.take([(quick, "k", 10)])

    assert first.tokens == 10
    assert second.tokens == 0
    assert timedelta(0) < second.wait <= timedelta(seconds=0.1)
    assert third.tokens == 10


async def test_a_lot_is_spent_without_a_round_trip():
    buckets = MemoryBuckets()

    assert await spent(limiter(buckets), "open", 100) == 100

    assert buckets.round_trips == 100 / OPEN.lot


async def test_who_is_refused_learns_when_to_come_back_and_asks_redis_no_more_until_then():
    clock, buckets = ManualClock(), MemoryBuckets()
    under_test = limiter(buckets, clock)

    assert await spent(under_test, "slow", 15) == 10
    trips = buckets.round_trips
    refused = await under_test.take([Want("slow", "k", 1)])

    assert refused is not None
    assert refused.limit == "slow"
    assert refused.retry_after == timedelta(seconds=1_000)
    assert buckets.round_trips == trips
    assert await spent(under_test, "slow", 1, key="another") == 1


async def test_a_want_of_two_limits_is_granted_or_refused_whole():
    buckets = MemoryBuckets()
    under_test = limiter(buckets)
    await spent(under_test, "slow", 10)

    for _ in range(5):
        assert await under_test.take([Want("open", "k", 1), Want("slow", "k", 1)]) is not None

    assert await spent(under_test, "open", 1_000) == 1_000


async def test_an_open_limit_lets_through_without_redis_and_a_closed_one_refuses(own_valkey):
    async with open_redis(own_valkey.address) as redis:
        under_test = limiter(RedisBuckets(redis, prefix="t:"))
        await own_valkey.kill()

        assert await spent(under_test, "open", 50) == 50
        refused = await under_test.take([Want("closed", "k", 1)])
        assert refused is not None
        assert refused.retry_after <= timedelta(seconds=1)

        await own_valkey.start()
        await eventually(lambda: passes(under_test, "closed"))


async def test_a_lease_ends_and_what_was_left_of_it_is_gone():
    clock, buckets = ManualClock(), MemoryBuckets()
    under_test = limiter(buckets, clock)
    await spent(under_test, "open", 1)

    await clock.advance(61)
    await spent(under_test, "open", 1)

    assert buckets.spent["open", "k"] == 2 * OPEN.lot


async def test_an_override_holds_at_once_and_is_taken_back():
    under_test = limiter(MemoryBuckets())
    await spent(under_test, "open", 1)

    under_test.override(b'{"open": {"burst": 25}}')
    assert await spent(under_test, "open", 30) == 5
    under_test.override(None)

    assert under_test.limits["open"] == OPEN


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ('{"opne": {"burst": 9}}', "limits are closed, open, slow"),
        ('{"open": {"burst": -1}}', "burst is from 5 to"),
        ('{"open": {"burst": 4}}', "burst is from 5 to"),
        ('{"open": {"burst": 7.5}}', "burst is a whole number"),
        ('{"open": {"burst": true}}', "burst is a whole number"),
        ('{"open": {"per_second": -3}}', "per_second is from"),
        ('{"open": {"per_second": 0}}', "per_second is from"),
        ('{"open": {"per_second": NaN}}', "per_second is from"),
        ('{"open": {"per_second": "9"}}', "per_second is a number"),
        ('{"open": {"burts": 9}}', "an override is an object of"),
        ('{"open": {}}', "an override is an object of"),
        ('{"open": 9}', "an override is an object of"),
    ],
)
def test_a_wrong_override_is_named_and_does_not_keep_out_a_good_one(value, complaint):
    said = {**json.loads(value), "slow": {"burst": 20}}

    overrides, complaints = read_overrides(json.dumps(said).encode(), KNOWN)

    assert overrides == {"slow": replace(SLOW, burst=20)}
    assert len(complaints) == 1
    assert complaint in complaints[0]


@pytest.mark.parametrize("value", [b"{", b"\xff", b"[]", b"7", b"[" * 100_000])
def test_a_value_that_cannot_be_read_changes_nothing(value):
    under_test = limiter(MemoryBuckets())
    under_test.override(b'{"open": {"burst": 25}}')

    under_test.override(value)

    assert under_test.limits["open"].burst == 25
