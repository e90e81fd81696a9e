"""The relay: carries outbox entries to the shards they are meant for, then removes them.

The instance that made an entry carries it at once; whoever finds an entry overdue takes it under a
committed lease. The `prev` test and the union of ranges make every carrying harmless, however
often and in whatever order it happens.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from mesh.backoff import Backoff
from mesh.failpoints import Failpoints
from mesh.metrics import COPIES
from mesh.postgres import STORE_ERRORS
from mesh.telemetry import Telemetry
from svc_message.lanes import Lanes
from svc_message.model import Outcome, Refusal
from svc_message.requests import Copy, ReceiptChange
from svc_message.results import CopyResult, MergeResult
from svc_message.routing import Router
from svc_message.shards.directory import Shards
from svc_message.store import ShardStore
from svc_message.traces import note_traces

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=5)
_TAKEN = 256
_SETTLE_EVERY = 0.1
# An entry whose predecessor another instance is just writing is tried again soon, then left to
# the sweep.
_SOON = 0.02
_SOON_TRIES = 5
_LONGEST = timedelta(seconds=60)
# More copies than this that wait for a shard, and sends to it are refused.
_MOST_PENDING = 10_000


class Relay:
    """Carries copies and receipt changes between shards."""

    def __init__(
        self,
        shards: Shards,
        stores: dict[str, ShardStore],
        router: Router,
        *,
        lanes_per_shard: int,
        sweep: timedelta,
        telemetry: Telemetry,
        failpoints: Failpoints,
    ) -> None:
        self._shards = shards
        self._stores = stores
        self._router = router
        self._sweep = sweep.total_seconds()
        self._failpoints = failpoints
        self._copied = telemetry.counter(COPIES)
        self._copies: Lanes[Copy] = Lanes(
            "copy", self._copy, shards, per_shard=lanes_per_shard, telemetry=telemetry
        )
        self._merges: Lanes[ReceiptChange] = Lanes(
            "merge", self._merge, shards, per_shard=lanes_per_shard, telemetry=telemetry
        )
        self._settlers = {name: _Settler(stores[name]) for name in shards.names}
        # Takes what was merged into a group's receipts; then settles it, or lets it come again.
        self.note_group: Callable[[ReceiptChange], None] = self.settle_receipt
        self._refusing: set[str] = set()

    def refuses(self, user_slot: int) -> bool:
        """Whether so much waits for the slot's shard that a send to it is refused."""
        return bool(self._refusing) and self._shards.shard_of(user_slot) in self._refusing

    def carry_copy(self, copy: Copy) -> None:
        """Write a copy on its user's shard; its entry is committed."""
        copy.done = self._copy_done
        self._copies.put(copy, copy.user_id)

    def carry_receipt(self, change: ReceiptChange) -> None:
        """Merge a receipt change on its account's shard; its entry is committed."""
        change.done = self._merge_done
        self._merges.put(change, change.user_id)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._copies.run(), name="copy-lanes")
            tasks.create_task(self._merges.run(), name="merge-lanes")
            for name in self._shards.names:
                tasks.create_task(self._settlers[name].run(), name=f"settle/{name}")
                tasks.create_task(self._sweep_for_ever(name), name=f"sweep/{name}")

    async def drained(self) -> None:
        """Return when nothing is on its way and what is done is removed."""
        await self._copies.drained()
        await self._merges.drained()
        for settler in self._settlers.values():
            await settler.flush()

    async def _copy(self, shard: str, copies: Sequence[Copy]) -> Sequence[CopyResult]:
        self._failpoints.hit("relay.entry_taken")
        await note_traces(self._stores[shard].traces, copies, [copy.slot for copy in copies])
        results = await self._stores[shard].copy(copies)
        self._failpoints.hit("relay.copy_written")
        return results

    async def _merge(self, shard: str, changes: Sequence[ReceiptChange]) -> Sequence[MergeResult]:
        return await self._stores[shard].merge(changes)

    def _copy_done(self, copy: Copy, result: CopyResult | Refusal) -> None:
        settler = self._settlers[copy.home]
        if isinstance(result, Refusal):
            settler.copies.postpone(copy)
        elif result.outcome == Outcome.NOT_YET:
            self._again(copy, settler)
        elif result.outcome == Outcome.QUEUE_FULL:
            settler.full.append(copy.entry_id)
            settler.copies.postpone(copy)
        else:
            settler.copies.remove(copy)
            self._copied.add(len(result.places))
            for place in result.places:
                self._router.deliver(copy, place)

    def _merge_done(self, change: ReceiptChange, result: MergeResult | Refusal) -> None:
        if isinstance(result, Refusal):
            self.postpone_receipt(change)
        elif change.user_id == change.conversation_id:
            self.note_group(change)
        else:
            self.settle_receipt(change)
            if result.row is not None:
                result.row.traces = change.traces
                self._router.tell(result.row)

    def settle_receipt(self, change: ReceiptChange) -> None:
        """Remove a change's entry: nothing is left to be done."""
        self._settlers[change.home].receipts.remove(change)

    def postpone_receipt(self, change: ReceiptChange) -> None:
        """Let a change's entry come up again."""
        self._settlers[change.home].receipts.postpone(change)

    def _again(self, copy: Copy, settler: "_Settler") -> None:
        copy.tries += 1
        if copy.tries < _SOON_TRIES:
            asyncio.get_running_loop().call_later(_SOON * copy.tries, self.carry_copy, copy)
        else:
            # Its predecessor may be postponed, but is not: no back-off of its own.
            copy.attempts = 0
            settler.copies.postpone(copy)

    async def _sweep_for_ever(self, shard: str) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(self._sweep)
            try:
                while await self._sweep_once(shard):
                    pass
                self._shards.tell(shard, is_well=True)
                backoff.reset()
            except STORE_ERRORS as error:
                self._shards.tell(shard, is_well=False)
                log.warning("sweep failed", shard=shard, error=type(error).__name__)
                await asyncio.sleep(backoff.next())

    async def _sweep_once(self, shard: str) -> bool:
        """Take what is overdue on one shard; whether there may be more."""
        down = self._shards.down_slots()
        store = self._stores[shard]
        copies = await store.outbox.take_copies(_TAKEN, _LEASE, down)
        for copy in copies:
            self.carry_copy(copy)
        changes = await store.outbox.take_receipts(_TAKEN, _LEASE, down)
        for change in changes:
            self.carry_receipt(change)
        await self._bound(store)
        return len(copies) == _TAKEN or len(changes) == _TAKEN

    async def _bound(self, store: ShardStore) -> None:
        for name in self._shards.names:
            if not self._shards.is_down(name):
                self._refusing.discard(name)
                continue
            slots = [slot for slot, owner in enumerate(self._shards.owners) if owner == name]
            if await store.outbox.pending_copies(slots, _MOST_PENDING) >= _MOST_PENDING:
                self._refusing.add(name)


class _Ledger:
    """Entries of one outbox that are to be removed, or postponed."""

    def __init__(self, wake: asyncio.Event) -> None:
        self.done: list[int] = []
        self.failed: list[tuple[int, timedelta]] = []
        self._wake = wake

    def remove(self, entry: Copy | ReceiptChange) -> None:
        self.done.append(entry.entry_id)
        self._wake.set()

    def postpone(self, entry: Copy | ReceiptChange) -> None:
        wait = min(timedelta(seconds=2**entry.attempts), _LONGEST)
        self.failed.append((entry.entry_id, wait))
        self._wake.set()

    def take(self) -> tuple[list[int], list[tuple[int, timedelta]]]:
        taken = self.done, self.failed
        self.done, self.failed = [], []
        return taken


class _Settler:
    """Tells one shard what became of its entries; what it fails to tell comes up as overdue."""

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self._wake = asyncio.Event()
        self.copies = _Ledger(self._wake)
        self.receipts = _Ledger(self._wake)
        self.full: list[int] = []

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            # Nobody waits for a removal, so it may wait for company.
            await asyncio.sleep(_SETTLE_EVERY)
            await self.flush()

    async def flush(self) -> None:
        self._wake.clear()
        (done, failed), full = self.copies.take(), self.full
        self.full = []
        receipts_done, receipts_failed = self.receipts.take()
        try:
            if done or failed or full:
                await self._store.outbox.settle_copies(done, failed, full)
            if receipts_done or receipts_failed:
                await self._store.outbox.settle_receipts(receipts_done, receipts_failed)
        except STORE_ERRORS as error:
            log.warning("entries stay for the sweep", error=type(error).__name__)
