"""Brings the shards' schemas up to date, forward only, and gives each shard its table of slots.

It may run twice, or by two at once. A migration whose text differs from what was applied is
refused.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence

import structlog

from mesh.migrations import (
    LOCK,
    Migration,
    MigrationRefused,
    apply,
    migrating,
    migrations_of,
    prepare_for_pooler,
)
from mesh.postgres import STORE_ERRORS, Connection
from svc_message.queue.settings import session_variables
from svc_message.settings import StoreSettings
from svc_message.shards.layout import (
    SlotRow,
    SlotState,
    first_owners,
    present_owners,
    rows_of,
)

log = structlog.get_logger(__name__)

_SLOTS = "SELECT slot, state, moved_to, version FROM slot"
_IN_USE = "SELECT EXISTS (SELECT FROM account)"
_FILL = """
INSERT INTO slot (slot, state, moved_to, version)
SELECT * FROM unnest($1::smallint[], $2::smallint[], $3::text[], $4::bigint[])
"""


def migrations() -> list[Migration]:
    """The steps that this release knows, in order."""
    return migrations_of("svc_message")


async def migrate(shards: Mapping[str, str], *, steps: Sequence[Migration] | None = None) -> None:
    """Bring every shard (name: DSN) up to date. Raises MigrationRefused, Unavailable."""
    if steps is None:
        steps = migrations()
    for shard, dsn in shards.items():
        await apply(shard, dsn, steps)
    await _fill_slots(shards)


async def run(settings: StoreSettings) -> int:
    """The command `migrate`: its exit code, with a word on what went wrong."""
    try:
        shards = _own_shards(settings)
        await migrate(shards)
        if settings.direct_shards:
            for dsn in shards.values():
                await prepare_for_pooler(dsn, session_variables(settings.events))
    except (*STORE_ERRORS, MigrationRefused, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _own_shards(settings: StoreSettings) -> dict[str, str]:
    """The shards themselves, where `shards` are poolers. Raises ValueError."""
    own = settings.own_dsns
    if own.keys() != settings.dsns.keys():
        raise ValueError("shards and direct_shards name different shards")
    return own


async def _fill_slots(shards: Mapping[str, str]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        connections = {}
        # All see the same order, so that two who fill wait for each other and never deadlock.
        for shard in sorted(shards):
            connection = await stack.enter_async_context(migrating(shards[shard]))
            await stack.enter_async_context(connection.transaction())
            await connection.execute(LOCK)
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
