"""Tells groups that a member's devices have changed: each makes its next device epoch.

They are told when no instance goes by a list of the devices of before any more. Whoever knows the
new epoch and hands a key out then has the account's devices as they are: a device that has left
cannot be named as one that stays, and go on being one that has the key.
"""

import asyncio
from datetime import timedelta

import structlog

from mesh.backoff import Backoff
from mesh.postgres import STORE_ERRORS, fetch
from svc_message.shards.directory import Shards

log = structlog.get_logger(__name__)

_TAKEN = 1000
_LEASE = timedelta(seconds=5)  # beside the time for which lists are fresh
_TAKE = "SELECT entry_id, user_id FROM take_device_changes($1, $2)"
_NEXT_EPOCHS = "SELECT next_device_epochs($1)"
_SETTLE = "SELECT settle_device_changes($1)"


class DeviceChanges:
    """Carries changes of devices from the accounts' shards to every shard that may hold a group."""

    def __init__(self, shards: Shards, *, every: timedelta, lists_fresh: timedelta) -> None:
        """`lists_fresh`: how long instances go by a list of devices."""
        self._shards = shards
        self._lists_fresh = lists_fresh.total_seconds()
        self._lease = _LEASE + lists_fresh
        self._every = every.total_seconds()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._shards.names:
                tasks.create_task(self._sweep_for_ever(name), name=f"device-changes/{name}")

    async def _sweep_for_ever(self, shard: str) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.sweep(shard)
                backoff.reset()
            except STORE_ERRORS as error:
                log.warning("device changes wait", shard=shard, error=type(error).__name__)
                await asyncio.sleep(backoff.next())

    async def sweep(self, shard: str) -> None:
        """Carry what waits on one shard. Raises STORE_ERRORS: then it waits for another time."""
        taken = await fetch(self._shards.pool(shard), _TAKE, _TAKEN, self._lease)
        if not taken:
            return
        await asyncio.sleep(self._lists_fresh)
        users = {row["user_id"] for row in taken}
        told = {user_id for user_id in users if await self._tell(user_id)}
        done = [row["entry_id"] for row in taken if row["user_id"] in told]
        if done:
            await fetch(self._shards.pool(shard), _SETTLE, done)

    async def _tell(self, user_id: bytes) -> bool:
        """Tell every shard; False if one has a slot on its way."""
        answers = [
            await fetch(self._shards.pool(name), _NEXT_EPOCHS, user_id)
            for name in self._shards.names
        ]
        return all(row[0] for [row] in answers)
