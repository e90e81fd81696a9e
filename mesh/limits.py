"""How much may be done how often: token buckets in Redis, spent from small leases; no messaging.

A bucket stands in Redis, whose clock is the only one that counts. An instance takes tokens out of
it in lots, before they are spent, and spends a lot without asking anybody: so no number of
instances together spends more than the bucket gave. What is left of a lot is gone after a while.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import isfinite
from typing import Any, NamedTuple, Protocol

import structlog

from mesh.clock import Clock, SystemClock
from mesh.metrics import LIMIT_FAILED_OPEN, LIMIT_LEASES, LIMIT_OVERRIDES_IGNORED, LIMIT_REFUSED
from mesh.redis import Argument, Redis, RedisError, Script
from mesh.telemetry import OFF, Telemetry

log = structlog.get_logger(__name__)

_MOST_LEASES = 100_000
_LEASE_SECONDS = 60.0
# Redis failed: so long it is not asked again, and limits fail as they say.
_SECONDS_WITHOUT_REDIS = 1.0
_MOST_BURST = 2**40
_MOST_WAIT = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit: what it counts, and what happens when Redis cannot be asked."""

    name: str
    meaning: str
    burst: int
    per_second: float
    lot: int
    fails_open: bool
    # One thing may cost so much: a burst below it would refuse it for ever.
    least_burst: int = 1


class Want(NamedTuple):
    """Some tokens of one bucket of a limit."""

    limit: str
    key: str
    amount: int


class Refused(NamedTuple):
    """Which limit is in the way, and for how long."""

    limit: str
    retry_after: timedelta


class Grant(NamedTuple):
    """What a bucket gave, or in how long it may."""

    tokens: int
    wait: timedelta


class BucketsUnreachable(Exception):
    """Redis did not answer, or not in time."""


class Buckets(Protocol):
    """Where the buckets stand."""

    async def take(self, wants: Sequence[tuple[Limit, str, int]]) -> list[Grant]:
        """At least the amount out of each, or nothing, and up to a lot; may raise Unreachable."""


# KEYS: the bucket; ARGV: burst, tokens a second, the least and the most to take. A bucket that is
# not there is full, and one that would be full again is not there.
_TAKE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local burst, rate, least, most =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens = burst
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
if held[1] then
  local passed = math.max(0, now - tonumber(held[2]))
  tokens = math.min(burst, tonumber(held[1]) + passed * rate / 1000000)
end
if tokens < least then
  return {0, math.ceil((least - tokens) / rate * 1000)}
end
local taken = math.min(math.max(least, most), math.floor(tokens))
tokens = tokens - taken
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens),
  'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - tokens) / rate * 1000) + 1)
return {taken, 0}
""")


class RedisBuckets:
    """Buckets in Redis; all that is taken at once is one round trip."""

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    async def take(self, wants: Sequence[tuple[Limit, str, int]]) -> list[Grant]:
        calls: list[tuple[Sequence[Argument], Sequence[Argument]]] = [
            (
                [f"{self._prefix}limit:{limit.name}:{{{key}}}"],
                [limit.burst, repr(limit.per_second), amount, min(limit.lot, limit.burst)],
            )
            for limit, key, amount in wants
        ]
        try:
            answers = await _TAKE.run_many(self._redis, calls)
        except (RedisError, OSError, TimeoutError) as error:
            raise BucketsUnreachable from error
        failure = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if failure is not None:
            raise BucketsUnreachable from failure
        return [Grant(taken, timedelta(milliseconds=wait)) for taken, wait in answers]


class _Lease:
    """Tokens of one bucket that are here, or since when there are none."""

    __slots__ = ("barred_until", "expires_at", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.expires_at = 0.0
        self.barred_until = 0.0


class Limiter:
    """Spends from leases, and asks the buckets for the next lot when one is used up."""

    def __init__(
        self,
        limits: Iterable[Limit],
        buckets: Buckets,
        *,
        telemetry: Telemetry = OFF,
        clock: Clock | None = None,
        most_leases: int = _MOST_LEASES,
    ) -> None:
        self._defaults = {limit.name: limit for limit in limits}
        self._limits = dict(self._defaults)
        self._buckets = buckets
        self._clock = clock or SystemClock()
        self._most_leases = most_leases
        self._leases: OrderedDict[tuple[str, str], _Lease] = OrderedDict()
        self._no_redis_until = 0.0
        self._refused = telemetry.counter(LIMIT_REFUSED)
        self._leased = telemetry.counter(LIMIT_LEASES)
        self._failed_open = telemetry.counter(LIMIT_FAILED_OPEN)
        self._ignored = telemetry.counter(LIMIT_OVERRIDES_IGNORED)

    @property
    def limits(self) -> Mapping[str, Limit]:
        """Every limit as it is now, by name."""
        return self._limits

    def override(self, value: bytes | None) -> None:
        """Take what operators have set; what is wrong with it is logged, counted and ignored."""
        overrides, complaints = read_overrides(value, self._defaults)
        for complaint in complaints:
            log.warning("an override of a limit is ignored", complaint=complaint)
            self._ignored.add(1)
        if overrides is None:  # nothing in it can be read: what was set before stays
            return
        limits = {**self._defaults, **overrides}
        changed = {name for name, limit in limits.items() if limit != self._limits[name]}
        self._limits = limits
        for key in [key for key in self._leases if key[0] in changed]:
            del self._leases[key]  # a new bound holds at once
        for name in sorted(changed):
            limit = limits[name]
            log.info("limit set", limit=name, burst=limit.burst, per_second=limit.per_second)

    async def take(self, wants: Sequence[Want]) -> Refused | None:
        """Spend all of it, or say what is in the way; asks Redis only when a lease is used up."""
        while True:
            now = self._clock.monotonic()
            lacking = [want for want in wants if self._lacks(want, now)]
            if not lacking:
                self._spend(wants)
                return None
            refused = self._barred(lacking, now)
            if refused is not None:
                self._refused.add(1, {"limit": refused.limit})
                return refused
            await self._lease(lacking, now)

    def _lacks(self, want: Want, now: float) -> bool:
        lease = self._leases.get(want[:2])
        return lease is None or lease.expires_at <= now or lease.tokens < want.amount

    def _spend(self, wants: Sequence[Want]) -> None:
        for want in wants:
            self._leases[want[:2]].tokens -= want.amount

    def _barred(self, lacking: Sequence[Want], now: float) -> Refused | None:
        """The longest wait among those that are known to have nothing."""
        barred = [
            (lease.barred_until - now, want.limit)
            for want in lacking
            if (lease := self._leases.get(want[:2])) is not None and lease.barred_until > now
        ]
        if not barred:
            return None
        seconds, limit = max(barred)
        return Refused(limit, min(timedelta(seconds=seconds), _MOST_WAIT))

    async def _lease(self, lacking: Sequence[Want], now: float) -> None:
        if now < self._no_redis_until:
            self._fail(lacking, now)
            return
        asked = [(self._limits[want.limit], want.key, want.amount) for want in lacking]
        try:
            grants = await self._buckets.take(asked)
        except BucketsUnreachable:
            now = self._clock.monotonic()
            self._no_redis_until = now + _SECONDS_WITHOUT_REDIS
            self._fail(lacking, now)
            return
        now = self._clock.monotonic()
        for want, (limit, _, _), grant in zip(lacking, asked, grants, strict=True):
            if limit is self._limits[want.limit]:  # else it was set anew meanwhile: ask again
                self._granted(want, grant, now)

    def _granted(self, want: Want, grant: Grant, now: float) -> None:
        lease = self._lease_of(want)
        if grant.tokens:
            kept = lease.tokens if lease.expires_at > now else 0
            lease.tokens = kept + grant.tokens
            lease.expires_at, lease.barred_until = now + _LEASE_SECONDS, 0.0
            self._leased.add(1, {"limit": want.limit})
        else:
            lease.barred_until = now + max(grant.wait.total_seconds(), 0.001)

    def _fail(self, lacking: Sequence[Want], now: float) -> None:
        for want in lacking:
            lease, limit = self._lease_of(want), self._limits[want.limit]
            if limit.fails_open:
                lease.tokens = max(limit.lot, want.amount)
                lease.expires_at, lease.barred_until = now + _SECONDS_WITHOUT_REDIS, 0.0
                self._failed_open.add(1, {"limit": want.limit})
            else:
                lease.barred_until = now + _SECONDS_WITHOUT_REDIS

    def _lease_of(self, want: Want) -> _Lease:
        lease = self._leases.setdefault(want[:2], _Lease())
        self._leases.move_to_end(want[:2])
        if len(self._leases) > self._most_leases:
            self._leases.popitem(last=False)
        return lease


def read_overrides(
    value: bytes | None, limits: Mapping[str, Limit]
) -> tuple[dict[str, Limit] | None, list[str]]:
    """The limits that a value sets otherwise, and what is wrong with the rest of it.

    None for a value of which nothing can be read. The value is JSON: a name to `burst`,
    `per_second`, or both.
    """
    if not value:
        return {}, []
    try:
        said = json.loads(value)
    except (ValueError, RecursionError):
        return None, ["the value is not JSON"]
    if not isinstance(said, dict):
        return None, ["the value is not a JSON object of limits by name"]
    overrides, complaints = {}, []
    for name, fields in said.items():
        if name not in limits:
            complaints.append(f"{name!r:.80} is no limit; limits are {', '.join(sorted(limits))}")
            continue
        wrong = _complaint(limits[name], fields)
        if wrong:
            complaints.append(f"{name}: {wrong}")
        else:
            overrides[name] = replace(limits[name], **_typed(fields))
    return overrides, complaints


def _complaint(limit: Limit, fields: Any) -> str:
    if not isinstance(fields, dict) or not fields or fields.keys() - {"burst", "per_second"}:
        return "an override is an object of burst, per_second, or both"
    burst, rate = fields.get("burst", limit.burst), fields.get("per_second", limit.per_second)
    if isinstance(burst, bool) or not isinstance(burst, int):
        return "burst is a whole number"
    if not limit.least_burst <= burst <= _MOST_BURST:
        return f"burst is from {limit.least_burst} to {_MOST_BURST}"
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        return "per_second is a number"
    if not isfinite(rate) or not 1e-6 <= rate <= _MOST_BURST:
        return f"per_second is from 0.000001 to {_MOST_BURST}"
    return ""


def _typed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(v) if name == "per_second" else v for name, v in fields.items()}
