"""Whose turn a sweep is: one instance's for each shard, as Redis has it."""

from datetime import timedelta

from mesh.redis import Redis, RedisError

_MILLISECOND = timedelta(milliseconds=1)


class Turns:
    """Turns by name; without Redis nobody has one."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    async def take(self, name: str, lasting: timedelta) -> bool:
        """Whether it is this instance's turn, and then nobody else's for so long."""
        key = f"{self._prefix}turn:{name}"
        try:
            return bool(await self._redis.set(key, b"", nx=True, px=lasting // _MILLISECOND))
        except (RedisError, OSError, TimeoutError):
            return False
