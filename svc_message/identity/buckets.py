"""Token buckets in Redis, one script a call: how often someone may do something.

Where they cannot be asked, nothing is allowed: they guard what cannot be given back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mesh.errors import ResourceExhausted, Unavailable
from mesh.redis import Redis, RedisError, Script

_MILLISECOND = timedelta(milliseconds=1)

# A bucket is kept as the moment at which it will be full again, by Redis's clock, and is gone by
# then. KEYS: buckets; ARGV: permits and milliseconds for one permit. Answers for each bucket 0, a
# permit was taken, or after how many milliseconds it has one.
_TAKE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local permits, each = tonumber(ARGV[1]), tonumber(ARGV[2])
local waits = {}
for i, key in ipairs(KEYS) do
  local full = math.max(tonumber(redis.call('GET', key) or now), now) + each
  waits[i] = math.max(full - permits * each - now, 0)
  if waits[i] == 0 then
    redis.call('SET', key, string.format('%.0f', full), 'PX', string.format('%.0f', full - now))
  end
end
return waits
""")


class RateLimited(ResourceExhausted):
    """The caller has done this too often; nothing was done."""

    reason = "RATE_LIMITED"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many permits at first, and one back every so often."""

    permits: int
    every: timedelta


class Buckets:
    """Buckets by name. Those of one call share a `{tag}` in their names, for Redis Cluster."""

    def __init__(self, redis: Redis, *, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    async def take(self, names: Sequence[str], limit: Limit) -> list[timedelta]:
        """Take a permit from each bucket that has one: zero, or the time until it has.

        Raises Unavailable when Redis cannot be asked.
        """
        keys = [self._prefix + name for name in names]
        each = limit.every // _MILLISECOND
        try:
            waits: list[int] = await _TAKE.run(self._redis, keys=keys, args=[limit.permits, each])
        except (RedisError, OSError, TimeoutError):
            raise Unavailable(
                "limits cannot be checked now", metadata={"dependency": "redis"}
            ) from None
        return [wait * _MILLISECOND for wait in waits]
