"""How identity asks its shards: a call goes to its slot's shard, many to each shard at once."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mesh.caller import Caller
from mesh.errors import root_cause
from mesh.ids import slot_of
from mesh.postgres import STORE_ERRORS, Connection, fetch
from svc_message.identity.devices_model import DeviceRevoked
from svc_message.model import Outcome
from svc_message.shards.directory import Shards, ShardUnavailable, SlotElsewhere

_CHECK_CALLER = "SELECT check_caller($1, $2, $3, $4) AS outcome"
_ELSEWHERE = (Outcome.SLOT_MOVING, Outcome.SLOT_MOVED)


class SlotStore:
    """What stores of identity are made of. Each call may be repeated.

    Each raises ShardUnavailable or SlotMoving when it cannot be done now.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    @property
    def shards(self) -> Sequence[str]:
        """The shards that hold accounts."""
        return self._shards.names

    async def check_caller(self, caller: Caller) -> None:
        """Return if the caller may act. Raises DeviceRevoked."""
        row = await self._ask(slot_of(caller.user_id), _CHECK_CALLER, *by(caller))
        demand_linked(row["outcome"])

    async def _ask(self, slot: int, statement: str, *arguments: object) -> Any:
        """The row that a function gives for one slot."""
        [row] = await self._rows(slot, statement, *arguments)
        return row

    async def _rows(self, slot: int, statement: str, *arguments: object) -> list[Any]:
        """The rows that a function gives for one slot."""

        async def work(connection: Connection) -> list[Any]:
            rows: list[Any] = await connection.fetch(statement, slot, *arguments)
            if rows and rows[0]["outcome"] in _ELSEWHERE:
                raise SlotElsewhere(rows[0]["outcome"])
            return rows

        return await self._shards.on_slot(slot, work)

    async def _ask_each(
        self,
        statement: str,
        slots: Sequence[int],
        *columns: Sequence[object],
        last: Sequence[object] = (),
    ) -> list[Any]:
        """The rows that a function gives for many slots, in their order; one call a shard.

        The function takes the distinct slots, each item's slot, the columns, and the last
        arguments.
        """
        rows: list[Any] = [None] * len(slots)
        by_shard: dict[str, list[int]] = defaultdict(list)
        for item, slot in enumerate(slots):
            by_shard[self._shards.shard_of(slot)].append(item)

        async def ask(items: Sequence[int]) -> None:
            chosen = [slots[item] for item in items]
            picked = [[column[item] for item in items] for column in columns]
            for item, row in zip(
                items, await self._ask_some(statement, chosen, picked, last), strict=True
            ):
                if row["outcome"] in _ELSEWHERE:
                    await ask([item])
                else:
                    rows[item] = row

        try:
            async with asyncio.TaskGroup() as tasks:
                for shard, items in by_shard.items():
                    tasks.create_task(ask(items), name=f"ask-{shard}")
        except ExceptionGroup as errors:
            raise root_cause(errors) from errors
        return rows

    async def _ask_some(
        self,
        statement: str,
        slots: Sequence[int],
        columns: Sequence[Sequence[object]],
        last: Sequence[object],
    ) -> list[Any]:
        """Rows for slots that are believed to be on one shard; only the first is sure to be."""

        async def work(connection: Connection) -> list[Any]:
            rows: list[Any] = await connection.fetch(
                statement, list(set(slots)), slots, *columns, *last
            )
            if rows[0]["outcome"] in _ELSEWHERE:
                raise SlotElsewhere(rows[0]["outcome"])
            return rows

        return await self._shards.on_slot(slots[0], work)

    async def _on_shard(self, shard: str, statement: str, *arguments: object) -> list[Any]:
        """The rows that a shard gives of what it owns. Raises STORE_ERRORS."""
        return await fetch(self._shards.pool(shard), statement, *arguments)

    async def _whole_shard(self, shard: str, statement: str, *arguments: object) -> list[Any]:
        """The same for a caller who needs them now. Raises ShardUnavailable."""
        try:
            return await self._on_shard(shard, statement, *arguments)
        except STORE_ERRORS as error:
            raise ShardUnavailable(
                "the shard cannot be reached", metadata={"shard": shard}
            ) from error


def by(caller: Caller) -> tuple[bytes, int, int]:
    """The arguments by which a function checks that the caller's credential still holds."""
    return caller.user_id, caller.device_id, caller.credential_version


def demand_linked(outcome: int) -> None:
    """Raise DeviceRevoked if the function found that it does not."""
    if outcome == Outcome.DEVICE_UNKNOWN:
        raise DeviceRevoked("the device was unlinked, or its credential replaced")
