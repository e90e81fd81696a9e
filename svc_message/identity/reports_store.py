"""Reports on the shards: each in its reporter's slot, read over all of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import grpc

from mesh.caller import Caller
from mesh.errors import WhimbrelError, root_cause
from mesh.ids import slot_of
from svc_message.identity.slot_store import SlotStore, by, demand_linked
from svc_message.model import Outcome

_EXISTS = "SELECT * FROM accounts_exist($1, $2, $3)"
_MAKE = "SELECT outcome, wait FROM make_report($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_BEFORE = "SELECT user_id, report_id, reported_at, content FROM reports_before($1, $2, $3)"
_FORGET = "DELETE FROM report WHERE reported_at < now() - $1::interval"

Cursor = tuple[datetime, bytes]


class AccountUnknown(WhimbrelError):
    """There is no such account."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "RECIPIENT_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Kept:
    """A report as it stands; `content` is what people said, and never shown in a log."""

    user_id: bytes
    report_id: bytes
    reported_at: datetime
    content: bytes

    def __repr__(self) -> str:
        return "Kept(...)"

    @property
    def cursor(self) -> Cursor:
        """Its place among all."""
        return self.reported_at, self.report_id


class ReportStore(SlotStore):
    """Keeps reports. Raises DeviceRevoked, ShardUnavailable, SlotMoving."""

    async def demand_account(self, user_id: bytes) -> None:
        """Raise AccountUnknown unless there is one."""
        [row] = await self._ask_each(_EXISTS, [slot_of(user_id)], [user_id])
        if row["outcome"] != Outcome.DONE:
            raise AccountUnknown("there is no such account")

    async def make(
        self,
        caller: Caller,
        report_id: bytes,
        *,
        reported_id: bytes,
        reason: int,
        content: bytes,
        most: int,
    ) -> timedelta | None:
        """Keep it; or return how long the caller, who has made so many in a day, has to wait."""
        row = await self._ask(
            slot_of(caller.user_id),
            _MAKE,
            *by(caller),
            report_id,
            reported_id,
            reason,
            content,
            most,
        )
        demand_linked(row["outcome"])
        wait: timedelta | None = row["wait"]
        return wait

    async def before(self, cursor: Cursor | None, limit: int) -> Sequence[Kept]:
        """The newest below the place, of all shards. Raises ShardUnavailable."""
        at, report_id = cursor or (None, None)
        try:
            async with asyncio.TaskGroup() as tasks:
                asked = [
                    tasks.create_task(self._whole_shard(shard, _BEFORE, at, report_id, limit))
                    for shard in self.shards
                ]
        except ExceptionGroup as errors:
            raise root_cause(errors) from errors
        # A slot that moves may show its rows on two shards for a moment.
        found = {row["report_id"]: Kept(*row) for task in asked for row in task.result()}
        return sorted(found.values(), key=lambda kept: kept.cursor, reverse=True)[:limit]

    async def forget(self, shard: str, keep: timedelta) -> None:
        """Remove what is older. Raises STORE_ERRORS."""
        await self._on_shard(shard, _FORGET, keep)
