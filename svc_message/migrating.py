"""Brings the shards' schemas up to date, forward only, and gives each shard its table of slots.

It may run twice, or by two at once. A migration whose text differs from what was applied is
refused.
"""

import contextlib
import hashlib
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from pathlib import Path

import structlog

from mesh.postgres import STORE_ERRORS, Connection, Limits, acquired, open_pool
from svc_message.shards.layout import (
    SlotRow,
    SlotState,
    first_owners,
    present_owners,
    rows_of,
)

log = structlog.get_logger(__name__)

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_WAIT = timedelta(seconds=5)
# An index on a big table takes its time, and a twin may be at work.
_LIMITS = Limits(
    statement=timedelta(hours=1),
    lock=timedelta(minutes=2),
    idle_in_transaction=timedelta(minutes=2),
)

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('whimbrel migration', 0))"
_CREATE = """
CREATE TABLE IF NOT EXISTS migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_APPLIED = "SELECT version, name, checksum FROM migration"
_RECORD = "INSERT INTO migration (version, name, checksum) VALUES ($1, $2, $3)"
_SLOTS = "SELECT slot, state, moved_to, version FROM slot"
_IN_USE = "SELECT EXISTS (SELECT FROM account)"
_FILL = """
INSERT INTO slot (slot, state, moved_to, version)
SELECT * FROM unnest($1::smallint[], $2::smallint[], $3::text[], $4::bigint[])
"""


class MigrationRefused(Exception):
    """The shards are not as the migrations expect; the step that found it changed nothing."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    script: str

    @property
    def checksum(self) -> str:
        """What the applied script is compared with."""
        return hashlib.sha256(self.script.encode()).hexdigest()


def migrations() -> list[Migration]:
    """The steps that this release knows, in order."""
    found = []
    for file in resources.files("svc_message").joinpath("sql").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text()))
    return sorted(found, key=lambda migration: migration.version)


async def migrate(shards: Mapping[str, str], *, steps: Sequence[Migration] | None = None) -> None:
    """Bring every shard (name: DSN) up to date. Raises MigrationRefused, Unavailable."""
    if steps is None:
        steps = migrations()
    for shard, dsn in shards.items():
        async with _connection(dsn) as connection:
            await _apply(shard, connection, steps)
    await _fill_slots(shards)


def read_shards(path: Path) -> dict[str, str]:
    """The shards' DSNs by name. Raises ValueError without quoting the file: it holds passwords."""
    try:
        shards = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{path} is not an object of shards")
    if not all(isinstance(dsn, str) and name for name, dsn in shards.items()):
        raise ValueError(f"{path}: each shard has a name and a DSN")
    return shards


async def run(shards_file: Path) -> int:
    """The command `migrate`: its exit code, with a word on what went wrong."""
    try:
        await migrate(read_shards(shards_file))
    except (*STORE_ERRORS, MigrationRefused, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _apply(shard: str, connection: Connection, steps: Sequence[Migration]) -> None:
    async with connection.transaction():
        await connection.execute(_LOCK)
        await connection.execute(_CREATE)
    for step in steps:
        async with connection.transaction():
            await connection.execute(_LOCK)
            await _apply_once(shard, connection, step)


async def _apply_once(shard: str, connection: Connection, step: Migration) -> None:
    applied = {row["version"]: row for row in await connection.fetch(_APPLIED)}
    known = applied.get(step.version)
    if known is None:
        if applied and max(applied) > step.version:
            raise MigrationRefused(f"{shard}: {step.name} comes after a later step was applied")
        await connection.execute(step.script)
        await connection.execute(_RECORD, step.version, step.name, step.checksum)
        log.info("migrated", shard=shard, version=step.version, name=step.name)
    elif known["checksum"] != step.checksum:
        raise MigrationRefused(
            f"{shard}: migration {step.version:04} ({step.name}) was applied with another text;"
            " an applied migration is never changed: add a new one"
        )


async def _fill_slots(shards: Mapping[str, str]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        connections = {}
        # All see the same order, so that two who fill wait for each other and never deadlock.
        for shard in sorted(shards):
            connection = await stack.enter_async_context(_connection(shards[shard]))
            await stack.enter_async_context(connection.transaction())
            await connection.execute(_LOCK)
            connections[shard] = connection
        await _fill_empty(tuple(shards), connections)


async def _fill_empty(names: Sequence[str], connections: Mapping[str, Connection]) -> None:
    tables = {shard: await _slots(connections[shard]) for shard in names}
    filled = {shard: rows for shard, rows in tables.items() if rows}
    try:
        owners = present_owners(filled) if filled else first_owners(names)
    except LookupError as error:
        raise MigrationRefused(str(error)) from error
    empty = [shard for shard in names if shard not in filled]
    lost = {owner.shard for owner in owners}.intersection(empty)
    if lost and await _is_in_use([connections[shard] for shard in filled]):
        # Filled anew it would say that its accounts do not exist, and their messages be dropped.
        raise MigrationRefused(
            f"{', '.join(sorted(lost))}: owns slots and is empty; restore it first"
        )
    for shard in empty:
        await _insert(connections[shard], rows_of(shard, owners))
        log.info("slots filled", shard=shard)


async def _is_in_use(connections: Sequence[Connection]) -> bool:
    return any([await connection.fetchval(_IN_USE) for connection in connections])


async def _slots(connection: Connection) -> list[SlotRow]:
    rows = await connection.fetch(_SLOTS)
    return [SlotRow(row[0], SlotState(row[1]), row[2], row[3]) for row in rows]


async def _insert(connection: Connection, rows: Sequence[SlotRow]) -> None:
    await connection.execute(
        _FILL,
        [row.slot for row in rows],
        [row.state for row in rows],
        [row.moved_to for row in rows],
        [row.version for row in rows],
    )


@contextlib.asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[Connection]:
    async with (
        open_pool(dsn, size=1, application_name="whimbrel-migrate", limits=_LIMITS) as pool,
        acquired(pool, within=_WAIT) as connection,
    ):
        yield connection
