"""What people report to the operators: bounded, counted, shown to operators alone, and forgotten.

What a report says is nobody's but theirs: no log and no error tells any of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from mesh.caller import Caller
from mesh.errors import InvalidArgument
from mesh.ids import ID_BYTES
from mesh.postgres import STORE_ERRORS
from svc_message.identity.buckets import RateLimited
from svc_message.identity.reports_store import Cursor, Kept, ReportStore

log = structlog.get_logger(__name__)

MOST_MESSAGES = 20
MOST_BYTES = 64 * 1024
MOST_REPORTS = 100
_PAGE_BYTES = 1024 * 1024


_REASONS = range(1, 6)  # numbered as in the proto


@dataclass(frozen=True, slots=True)
class NewReport:
    """What a person reports; `content` is the whole of it, as it is kept."""

    report_id: bytes
    user_id: bytes
    reason: int
    message_ids: Sequence[bytes]
    content: bytes = field(repr=False)


class Reports:
    """Takes reports, and gives them out by pages."""

    def __init__(self, store: ReportStore, *, most_a_day: int, keep: timedelta) -> None:
        self._store = store
        self._most = most_a_day
        self._keep = keep

    async def report(self, caller: Caller, new: NewReport) -> None:
        """Keep a report of the caller.

        Raises InvalidArgument, AccountUnknown, RateLimited, DeviceRevoked, Unavailable.
        """
        _check(caller, new)
        await self._store.check_caller(caller)
        await self._store.demand_account(new.user_id)
        wait = await self._store.make(
            caller,
            new.report_id,
            reported_id=new.user_id,
            reason=new.reason,
            content=new.content,
            most=self._most,
        )
        if wait is not None:
            told = {"limit": "reports", "allowed": str(self._most)}
            raise RateLimited("too many reports in a day", metadata=told, retry_after=wait)

    async def page(self, before: Cursor | None, limit: int) -> tuple[list[Kept], Cursor | None]:
        """Reports below the place, newest first, and the next place, if any. Raises Unavailable."""
        limit = min(limit or MOST_REPORTS, MOST_REPORTS)
        found = await self._store.before(before, limit + 1)
        page: list[Kept] = []
        size = 0
        for kept in found[:limit]:
            size += len(kept.content)
            if page and size > _PAGE_BYTES:
                break
            page.append(kept)
        return page, page[-1].cursor if len(page) < len(found) else None

    async def sweep(self) -> None:
        """Forget what is old, on each shard that can be reached."""
        for shard in self._store.shards:
            try:
                await self._store.forget(shard, self._keep)
            except STORE_ERRORS as error:
                log.warning("sweep given up", shard=shard, error=type(error).__name__)


def _check(caller: Caller, new: NewReport) -> None:
    if len(new.report_id) != ID_BYTES:
        raise _bad("report_id", f"{ID_BYTES} bytes")
    if len(new.user_id) != ID_BYTES or new.user_id == caller.user_id:
        raise _bad("user_id", f"{ID_BYTES} bytes, another account than one's own")
    if new.reason not in _REASONS:
        raise _bad("reason", "a ReportReason, not UNSPECIFIED")
    if len(new.message_ids) > MOST_MESSAGES:
        raise _bad("messages", f"at most {MOST_MESSAGES}")
    if any(len(one) != ID_BYTES for one in new.message_ids):
        raise _bad("messages.message_id", f"{ID_BYTES} bytes")
    # The whole request, for it is kept as it came.
    if len(new.content) > MOST_BYTES:
        raise _bad("messages", f"at most {MOST_BYTES} bytes in all")


def _bad(field: str, allowed: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} is out of bounds", metadata={"field": field, "allowed": allowed}
    )
