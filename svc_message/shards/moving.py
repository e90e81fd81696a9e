"""Moves a slot from one shard to another while both serve everything else.

The order is: freeze at the source, INCOMING at the target, copy, compare, MOVED at the source,
OWNED at the target, tell the other shards, remove the source's rows. At most one shard serves the
slot at any moment. Whatever kills a move, the next one for the slot finishes it or takes it back
first; to take it back, move the slot to where it is.

A mover keeps one connection to each shard, which holds the slot's lock there, and never makes
another: one that was cut off cannot go on beside its successor.
"""

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import structlog

from mesh.ids import SLOTS
from mesh.postgres import STORE_ERRORS, Connection, Limits, acquired, open_pool
from svc_message.shards.layout import Owner, SlotRow, SlotState, owner_of
from svc_message.shards.slot_rows import (
    TABLES,
    Columns,
    columns_of,
    content_of,
    copy_table,
    remove_rows,
)

log = structlog.get_logger(__name__)

OnStep = Callable[[str], None]

_WAIT = timedelta(seconds=5)
_LIMITS = Limits(
    statement=timedelta(minutes=10),
    lock=timedelta(seconds=5),
    idle_in_transaction=timedelta(minutes=10),
)
_FREEZE_TRIES = 20
# Seconds. Whoever waited behind the lock is let through, and for longer than it had to wait.
_FREEZE_PAUSE = (0.2, 1.0)

_NOTHING_BUT_INDEXES = "SET enable_hashjoin = off; SET enable_mergejoin = off"
_HOLD = "SELECT pg_try_advisory_lock(hashtext('whimbrel slot'), $1)"
_READ = "SELECT slot, state, moved_to, version FROM slot WHERE slot = $1"
_CHANGE = """
UPDATE slot SET state = $4, moved_to = $5, version = $6
WHERE slot = $1 AND state = $2 AND version = $3
"""
_SOON = "SET LOCAL lock_timeout = '200ms'"
_LOCK = "LOCK TABLE slot IN ACCESS EXCLUSIVE MODE"


class MoveRefused(Exception):
    """The move cannot be made; the slot is where it was."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did."""

    slot: int
    source: str
    target: str
    rows: int
    frozen: timedelta


async def move_slot(
    shards: Mapping[str, str], slot: int, to: str, *, on_step: OnStep = lambda _: None
) -> Moved | None:
    """Bring the slot to the shard `to`; None if it was there already.

    `on_step` hears of each step when it is done. Raises MoveRefused, Unavailable, asyncpg's errors.
    """
    if not 0 <= slot < SLOTS:
        raise MoveRefused(f"slots are 0 to {SLOTS - 1}")
    if to not in shards:
        raise MoveRefused(f"there is no shard {to!r}, only {', '.join(shards)}")
    async with _held(shards, slot) as connections:
        move = _Move(slot, connections, on_step)
        await move.read()
        await move.finish_earlier(to)
        moved = None if move.owner.shard == to else await move.run(to)
        await move.clean()
    if moved is not None:
        frozen_ms = moved.frozen // timedelta(milliseconds=1)
        log.info("slot moved", slot=slot, to=to, rows=moved.rows, frozen_ms=frozen_ms)
    return moved


async def run(shards: Mapping[str, str], slot: int, to: str) -> int:
    """The command `move-slot`: its exit code, with a word on what was done or went wrong."""
    try:
        moved = await move_slot(shards, slot, to)
    except (*STORE_ERRORS, MoveRefused) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if moved is None:
        sys.stdout.write(f"slot {slot} is on {to}\n")
    else:
        sys.stdout.write(
            f"slot {slot} moved from {moved.source} to {to}: {moved.rows} rows,"
            f" frozen for {moved.frozen // timedelta(milliseconds=1)} ms\n"
        )
    return 0


class _Move:
    """One slot's move, as long as its lock is held."""

    def __init__(self, slot: int, connections: Mapping[str, Connection], on_step: OnStep) -> None:
        self._slot = slot
        self._connections = connections
        self._on_step = on_step
        self._rows: dict[str, SlotRow] = {}

    @property
    def owner(self) -> Owner:
        """The shard that the newest word names."""
        return owner_of(self._rows)

    async def read(self) -> None:
        """Learn what each shard says of the slot. Raises MoveRefused if the words do not fit."""
        for shard, connection in self._connections.items():
            row = await connection.fetchrow(_READ, self._slot)
            if row is None:
                raise MoveRefused(f"{shard} has no row of slot {self._slot}: migrate first")
            self._rows[shard] = SlotRow(row[0], SlotState(row[1]), row[2], row[3])
        owner = self.owner
        if self._rows.get(owner.shard, None) is None:
            raise MoveRefused(f"slot {self._slot} is on {owner.shard!r}, which is not given")
        if self._rows[owner.shard].state == SlotState.MOVED:
            raise MoveRefused(f"the shards do not agree on slot {self._slot}")

    async def finish_earlier(self, to: str) -> None:
        """Finish a move that was past its turn; take one back that nobody wants any more."""
        owner = self.owner
        state = self._rows[owner.shard].state
        if state == SlotState.INCOMING:
            await self._set(owner.shard, SlotState.OWNED, version=owner.version)
        elif state == SlotState.FROZEN and owner.shard == to:
            await self._set(to, SlotState.OWNED, version=self._next_version())

    async def run(self, to: str) -> Moved:
        """Bring the slot to `to`. If that fails before its turn, the slot is left as it was."""
        source = self.owner.shard
        # All that need not be done while nobody serves the slot is done before.
        columns = await columns_of(self._connections[source])
        await remove_rows(self._connections[to], slot=self._slot)
        is_turned = False
        try:
            await self._freeze(source)
            began = time.monotonic()
            self._on_step("frozen")
            await self._set(to, SlotState.INCOMING, version=self._next_version())
            self._on_step("incoming")
            rows = await self._copy(source, to, columns)
            await self._set(source, SlotState.MOVED, to=to, version=self._rows[to].version)
            is_turned = True
        finally:
            if not is_turned:
                await self._thaw(source, to)
        self._on_step("source moved")
        await self._set(to, SlotState.OWNED, version=self._rows[to].version)
        took = timedelta(seconds=time.monotonic() - began)
        self._on_step("target owned")
        return Moved(self._slot, source, to, rows, took)

    async def clean(self) -> None:
        """Tell the other shards who owns the slot, and remove the rows that they still have."""
        owner = self.owner
        others = [shard for shard in self._rows if shard != owner.shard]
        for shard in others:
            if self._rows[shard].moved_to != owner.shard:
                await self._set(shard, SlotState.MOVED, to=owner.shard, version=owner.version)
        self._on_step("others told")
        for shard in others:
            await remove_rows(self._connections[shard], slot=self._slot)
        self._on_step("removed")

    async def _freeze(self, source: str) -> None:
        """Wait out everyone who has read the slot's row, and let nobody serve it any more."""
        if self._rows[source].state == SlotState.FROZEN:
            return
        connection = self._connections[source]
        for _ in range(_FREEZE_TRIES):
            try:
                async with connection.transaction():
                    await connection.execute(_SOON)
                    await connection.execute(_LOCK)
                    await self._set(source, SlotState.FROZEN, version=self._rows[source].version)
                return
            except asyncpg.LockNotAvailableError:
                await asyncio.sleep(random.uniform(*_FREEZE_PAUSE))  # noqa: S311
        raise MoveRefused(f"{source} is too busy to freeze slot {self._slot}")

    async def _copy(self, source: str, to: str, columns: Columns) -> int:
        reading, writing = self._connections[source], self._connections[to]
        async with writing.transaction():
            originals = [
                await copy_table(reading, writing, table, columns=columns, slot=self._slot)
                for table in TABLES
            ]
        self._on_step("copied")
        for table, original in zip(TABLES, originals, strict=True):
            copy = await content_of(writing, table, columns=columns, slot=self._slot)
            if copy != original:
                raise MoveRefused(f"the copy of {table.name} is not like its original")
        self._on_step("compared")
        return sum(original.rows for original in originals)

    async def _thaw(self, source: str, to: str) -> None:
        """Let the source serve the slot again, unless its turn is over: then nothing is undone."""
        try:
            await self.read()
            if self._rows[source].state != SlotState.FROZEN:
                return
            version = self._next_version()
            await self._set(source, SlotState.OWNED, version=version)
            if self._rows[to].state == SlotState.INCOMING:
                await self._set(to, SlotState.MOVED, to=source, version=version)
            await remove_rows(self._connections[to], slot=self._slot)
        except (*STORE_ERRORS, MoveRefused):
            log.exception("the move was not taken back: move the slot again", slot=self._slot)

    async def _set(
        self, shard: str, state: SlotState, *, version: int, to: str | None = None
    ) -> None:
        known = self._rows[shard]
        status = await self._connections[shard].execute(
            _CHANGE, self._slot, known.state, known.version, state, to, version
        )
        if status != "UPDATE 1":
            raise MoveRefused(f"someone else changed slot {self._slot} on {shard}")
        self._rows[shard] = SlotRow(self._slot, state, to, version)

    def _next_version(self) -> int:
        return 1 + max(row.version for row in self._rows.values())


@contextlib.asynccontextmanager
async def _held(shards: Mapping[str, str], slot: int) -> AsyncIterator[dict[str, Connection]]:
    """A connection to each shard that holds the slot's lock as long as it lives."""
    async with contextlib.AsyncExitStack() as stack:
        connections = {}
        for shard in sorted(shards):
            pool = await stack.enter_async_context(
                open_pool(shards[shard], size=1, application_name="whimbrel-move", limits=_LIMITS)
            )
            connection = await stack.enter_async_context(acquired(pool, within=_WAIT))
            if not await connection.fetchval(_HOLD, slot):
                raise MoveRefused(f"another move of slot {slot} is under way")
            await connection.execute(_NOTHING_BUT_INDEXES)
            connections[shard] = connection
        yield connections
