"""The session registry in Redis: which gateway holds a device's session, for 90 seconds at a time.

Its entries are hints, fenced by the session's epoch, which comes from Postgres: an entry with a
greater epoch is never overwritten, and only its owner deletes one. So a flush cannot promote a
session that was replaced. Nothing is lost when Redis is; entries are made again.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mesh.redis import Argument, Redis, RedisError, Script
from svc_gateway.to_service import Address

_Calls = Sequence[tuple[Sequence[Argument], Sequence[Argument]]]


class Unreachable(Exception):
    """Redis did not answer, or not in time."""


class Claimed(enum.Enum):
    """What became of a claim."""

    KEPT = 0  # it was ours already
    TAKEN = 1  # nobody's, or an older session's: pushes may have gone astray until now
    LOST = 2  # a newer session has it


@dataclass(frozen=True, slots=True)
class Route:
    """A session, as the registry names it."""

    address: Address
    epoch: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What became of a claim, and the greatest epoch that is known now."""

    outcome: Claimed
    epoch: int


_CLAIM = Script("""
local held = redis.call('GET', KEYS[1])
local epoch = held and tonumber(string.match(held, '^(%d+):')) or 0
if epoch > tonumber(ARGV[1]) then
  return {2, epoch}
end
local mine = ARGV[1] .. ':' .. ARGV[2]
redis.call('SET', KEYS[1], mine, 'PX', ARGV[3])
return {held == mine and 0 or 1, tonumber(ARGV[1])}
""")

_RELEASE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] .. ':' .. ARGV[2] then
  return redis.call('DEL', KEYS[1])
end
return 0
""")


class RedisRegistry:
    """The registry of one gateway; every call is one round trip, and may raise Unreachable."""

    def __init__(self, redis: Redis, *, prefix: str, instance_id: str, ttl: timedelta) -> None:
        self._redis = redis
        self._prefix = prefix
        self._instance_id = instance_id
        self._ttl_ms = int(ttl.total_seconds() * 1000)

    async def claim(self, routes: Sequence[Route]) -> list[Claim | None]:
        """Claim, or renew, each session; None where Redis refused just that one."""
        calls: _Calls = [
            ([self._key(route.address)], [route.epoch, self._instance_id, self._ttl_ms])
            for route in routes
        ]
        answers = await self._run(_CLAIM, calls)
        return [
            None if isinstance(answer, Exception) else Claim(Claimed(answer[0]), answer[1])
            for answer in answers
        ]

    async def release(self, routes: Sequence[Route]) -> None:
        """Delete those entries that are still these sessions'."""
        calls: _Calls = [
            ([self._key(route.address)], [route.epoch, self._instance_id]) for route in routes
        ]
        await self._run(_RELEASE, calls)

    async def renew_canary(self) -> bool:
        """Whether this instance's own mark was there; it is again. If not, Redis was flushed."""
        key = f"{self._prefix}canary:{self._instance_id}"
        try:
            return await self._redis.set(key, "1", px=self._ttl_ms, get=True) is not None
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable from error

    async def remove_canary(self) -> None:
        """This instance is going."""
        try:
            await self._redis.delete(f"{self._prefix}canary:{self._instance_id}")
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable from error

    async def _run(self, script: Script, calls: _Calls) -> list[Any]:
        try:
            return await script.run_many(self._redis, calls)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable from error

    def _key(self, address: Address) -> str:
        user_id, device_id = address
        return f"{self._prefix}session:{{{user_id.hex()}}}:{device_id}"
