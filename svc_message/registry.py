"""The session registry in Redis, as its reader: device -> gateway. The gateways write it.

The key is `<prefix>session:{<user id, hex>}:<device id>`, the value `<epoch>:<gateway instance
id>`.
"""

from collections.abc import Mapping, Sequence

import structlog

from mesh.redis import Redis, RedisError

log = structlog.get_logger(__name__)


class RedisRegistry:
    """Reads many sessions in one round trip."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._is_away = False

    async def routes(
        self, devices: Sequence[tuple[bytes, int]]
    ) -> Mapping[tuple[bytes, int], str] | None:
        """The gateway of each device that has one; None when Redis is away."""
        keys = [f"{self._prefix}session:{{{user.hex()}}}:{device}" for user, device in devices]
        try:
            # One command: of a pipeline of them each costs more than all its keys here.
            values = await self._redis.mget(keys)
        except (RedisError, OSError, TimeoutError) as error:
            if not self._is_away:
                log.warning("registry cannot be read", error=type(error).__name__)
            self._is_away = True
            return None
        self._is_away = False
        return {
            device: value.decode().partition(":")[2]
            for device, value in zip(devices, values, strict=True)
            if isinstance(value, bytes)
        }
