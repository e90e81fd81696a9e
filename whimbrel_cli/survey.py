"""What a mesh looks like from its stores: who is in etcd, what the shards own, who is connected."""

import asyncio
import collections
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from mesh.discovery import Discovery
from mesh.errors import Unavailable
from mesh.instances import Instance
from mesh.postgres import Limits, acquired, open_pool
from mesh.redis import RedisError, open_redis
from whimbrel_cli.stack.description import Description

SERVICES = ("gateway", "message")

_PATIENCE = timedelta(seconds=2)
# State 4 is a slot that another shard owns.
_SLOTS = "SELECT state, count(*) AS slots FROM slot WHERE state <> 4 GROUP BY state ORDER BY state"
_STATES = {1: "owned", 2: "frozen", 3: "incoming"}
_SESSIONS = "whimbrel:session:*"  # value: epoch:gateway instance
_SCAN_COUNT = 1000


@dataclass(frozen=True)
class Survey:
    """What could be seen; None where a store did not answer."""

    instances: list[Instance] | None
    slots: dict[str, dict[str, int] | None]  # by shard, then by state
    sessions: dict[str, int] | None  # by gateway instance


async def survey(mesh: Description) -> Survey:
    """Look at all stores at once."""
    async with asyncio.TaskGroup() as tasks:
        instances = tasks.create_task(_instances(mesh.etcd), name="instances")
        sessions = tasks.create_task(_sessions(mesh.redis), name="sessions")
        slots = {
            shard: tasks.create_task(_slots(dsn), name=f"slots-{shard}")
            for shard, dsn in mesh.shards.items()
        }
    return Survey(
        instances=instances.result(),
        slots={shard: task.result() for shard, task in slots.items()},
        sessions=sessions.result(),
    )


async def _instances(etcd: str) -> list[Instance] | None:
    async with Discovery(etcd) as discovery:
        views = [discovery.watch(service) for service in SERVICES]
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                for view in views:
                    await view.synced.wait()
        except TimeoutError:
            return None
        return [instance for view in views for instance in view.instances.values()]


async def _slots(dsn: str) -> dict[str, int] | None:
    limits = Limits(connect=_PATIENCE)
    try:
        async with (
            open_pool(dsn, size=1, application_name="whimbrel-status", limits=limits) as pool,
            acquired(pool, within=_PATIENCE) as connection,
        ):
            rows = await connection.fetch(_SLOTS)
    except Unavailable:
        return None
    return {_STATES[row["state"]]: row["slots"] for row in rows}


async def _sessions(url: str) -> dict[str, int] | None:
    counted: collections.Counter[str] = collections.Counter()
    try:
        async with open_redis(url, timeout=_PATIENCE, client_name="whimbrel-status") as redis:
            cursor = 0
            while True:
                cursor, keys = await redis.scan(cursor, match=_SESSIONS, count=_SCAN_COUNT)
                values = cast("list[bytes | None]", await redis.mget(keys) if keys else [])
                counted.update(value.decode().partition(":")[2] for value in values if value)
                if cursor == 0:
                    return dict(counted)
    except (RedisError, OSError):
        return None
