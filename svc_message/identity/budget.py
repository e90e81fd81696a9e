"""How many accounts one account may look for in a day, counted in Redis.

Whoever could ask for all numbers would have a list of all people: so targets are counted, not
calls, a target that was asked for before is free, and where nobody can count nothing is answered.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta

from mesh.errors import Unavailable
from mesh.redis import Argument, Redis, RedisError, Script
from svc_message.identity.buckets import RateLimited

_A_DAY = timedelta(days=1)
_TARGET_BYTES = 8

# KEYS: the set of the account's targets; ARGV: most of them, seconds to keep them, targets. The day
# begins with the first target. Answers 0, or in how many seconds there is a new budget.
_SPEND = Script("""
local new = {}
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 0 then
    new[#new + 1] = ARGV[i]
  end
end
if #new == 0 then
  return 0
end
local spent = redis.call('SCARD', KEYS[1])
if spent + #new > tonumber(ARGV[1]) then
  return math.max(redis.call('TTL', KEYS[1]), 1)
end
redis.call('SADD', KEYS[1], unpack(new))
if spent == 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return 0
""")


class LookUpBudget:
    """Spends the budgets of accounts."""

    def __init__(self, redis: Redis, *, prefix: str, most: int = 1_000) -> None:
        self._redis = redis
        self._prefix = prefix
        self._most = most

    async def spend(self, user_id: bytes, targets: Sequence[bytes]) -> None:
        """Take distinct targets from the account's budget, all or none.

        Raises RateLimited, and Unavailable when Redis cannot be asked.
        """
        key = f"{self._prefix}lookups:{{{user_id.hex()}}}"
        args: list[Argument] = [self._most, int(_A_DAY.total_seconds()), *map(_short, targets)]
        try:
            wait = await _SPEND.run(self._redis, keys=[key], args=args)
        except (RedisError, OSError, TimeoutError):
            raise Unavailable(
                "look-ups cannot be counted now", metadata={"dependency": "redis"}
            ) from None
        if wait:
            raise RateLimited(
                "too many accounts were looked for", retry_after=timedelta(seconds=wait)
            )


def _short(target: bytes) -> bytes:
    return hashlib.sha256(target).digest()[:_TARGET_BYTES]
