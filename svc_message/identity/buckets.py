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
# then. KEYS: buckets; ARGV: permits and milliseconds for one permit. Answers 0, or after how many
# milliseconds every bucket has a permit; then it has taken none.
_TAKE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local permits, each = tonumber(ARGV[1]), tonumber(ARGV[2])
local full, wait = {}, 0
for i, key in ipairs(KEYS) do
  full[i] = math.max(tonumber(redis.call('GET', key) or now), now) + each
  wait = math.max(wait, full[i] - permits * each - now)
end
if wait > 0 then
  return wait
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.0f', full[i]), 'PX', string.format('%.0f', full[i] - now))
end
return 0
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

    async def take(self, names: Sequence[str], limit: Limit) -> timedelta:
        """Take a permit from each bucket, or none at all and the time until all have one.

        Zero means taken. Raises Unavailable when Redis cannot be asked.
        """
        keys = [self._prefix + name for name in names]
        each = limit.every // _MILLISECOND
        try:
            wait: int = await _TAKE.run(self._redis, keys=keys, args=[limit.permits, each])
        except (RedisError, OSError, TimeoutError):
            raise Unavailable(
                "limits cannot be checked now", metadata={"dependency": "redis"}
            ) from None
        return wait * _MILLISECOND
