"""All that a shard holds of one slot: copied to another shard, compared, and removed.

Knows which table belongs to a slot by which key; knows nothing of who may own the slot.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from mesh.errors import root_cause
from mesh.postgres import Connection

Columns = Mapping[str, Sequence[str]]

_AT_ONCE = 5_000  # rows removed in one transaction
_CHUNKS_AHEAD = 16

_SLOT = "t.slot = $1"
_USER = "t.user_id IN (SELECT a.user_id FROM account a WHERE a.slot = $1)"
_GROUP = "t.group_id IN (SELECT g.group_id FROM chat_group g WHERE g.slot = $1)"
_CHANNEL = "t.channel_id IN (SELECT c.channel_id FROM channel c WHERE c.slot = $1)"
_CONVERSATION = (
    "t.conversation_id IN (SELECT c.conversation_id FROM conversation c WHERE c.slot = $1"
    " UNION ALL SELECT g.group_id FROM chat_group g WHERE g.slot = $1)"
)
# Whose receipts they are: an account, or a group.
_OWNER = (
    "t.user_id IN (SELECT a.user_id FROM account a WHERE a.slot = $1"
    " UNION ALL SELECT g.group_id FROM chat_group g WHERE g.slot = $1)"
)

# An identity column is left out: the other shard gives entries ids of its own, in the same order.
_COLUMNS = """
SELECT attrelid::regclass::text AS name, array_agg(attname::text ORDER BY attnum) AS columns
FROM pg_attribute
WHERE attrelid = ANY ($1::text[]::regclass[]) AND attnum > 0 AND NOT attisdropped
    AND attidentity = ''
GROUP BY attrelid
"""
_IS_SERVED = "SELECT cardinality(owned_slots(ARRAY[$1::smallint])) = 1"
_IS_NOT_SERVED = "SELECT state IN (3, 4) FROM slot WHERE slot = $1 FOR SHARE"
_QUEUE_REMOVAL = """
DELETE FROM device_queue WHERE ctid = ANY (ARRAY(
    SELECT q.ctid FROM device_queue q WHERE q.user_id = $1 LIMIT $2))
"""


class StillServed(Exception):
    """The shard serves the slot or is its source: its rows are not to be removed."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows belong to slots."""

    name: str
    where: str
    order: str


@dataclass(frozen=True, slots=True)
class Content:
    """The rows of one table and slot, in order, as a count and a hash."""

    rows: int
    digest: bytes


# The rows of users and conversations are found by their owner's row: owners come first.
TABLES = (
    Table("account", _SLOT, "user_id"),
    Table("handle", _SLOT, "handle"),
    Table("phone_number", _SLOT, "number_hash"),
    Table("registration_code", _SLOT, "number_hash"),
    Table("conversation", _SLOT, "conversation_id"),
    Table("chat_group", _SLOT, "group_id"),
    Table("group_profile", _GROUP, "group_id"),
    Table("member", _GROUP, "group_id, user_id, joined_revision"),
    Table("group_ban", _GROUP, "group_id, user_id"),
    Table("join_request", _GROUP, "group_id, user_id"),
    Table("group_change", _GROUP, "group_id, revision"),
    Table("group_device_change", _GROUP, "group_id, device_epoch"),
    Table("group_message", _GROUP, "group_id, seq"),
    Table("channel", _SLOT, "channel_id"),
    Table("channel_admin", _CHANNEL, "channel_id, user_id"),
    Table("channel_post", _CHANNEL, "channel_id, seq"),
    Table("subscription", _USER, "user_id, channel_id"),
    Table("device", _USER, "user_id, device_id"),
    Table("thread", _USER, "user_id, conversation_id"),
    Table("device_queue", _USER, "user_id, device_id, pos"),
    Table("device_keys", _USER, "user_id, device_id"),
    Table("one_time_prekey", _USER, "user_id, device_id, place"),
    Table("one_time_kem_prekey", _USER, "user_id, device_id, place"),
    Table("link_token", _USER, "user_id"),
    Table("provisioning", _SLOT, "address"),
    Table("receipt_counter", _OWNER, "user_id"),
    Table("receipt", _OWNER, "user_id, conversation_id, peer_id"),
    Table("first_contact", _USER, "user_id, recipient_id"),
    Table("report", _USER, "user_id, report_id"),
    Table("block", _USER, "user_id, blocked_id"),
    Table("mute", _USER, "user_id, conversation_id"),
    Table("copy_outbox", _SLOT, "entry_id"),
    Table("receipt_outbox", _SLOT, "entry_id"),
    Table("group_outbox", _SLOT, "group_id, seq"),
    Table("device_change_outbox", _USER, "entry_id"),
    Table("domain_event", _SLOT, "entry_id"),
    Table("message_trace", _SLOT, "message_id"),
    *(
        Table(
            f"dedup_{day}",
            _CONVERSATION,
            "conversation_id, sender_id, sender_device_id, client_message_id",
        )
        for day in range(10)
    ),
)


async def columns_of(connection: Connection) -> Columns:
    """The columns of each table that are the same wherever a row is."""
    rows = await connection.fetch(_COLUMNS, [table.name for table in TABLES])
    return {row["name"]: row["columns"] for row in rows}


async def copy_table(
    source: Connection, target: Connection, table: Table, *, columns: Columns, slot: int
) -> Content:
    """Copy the slot's rows, inside the target's transaction; return what was read."""
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_CHUNKS_AHEAD)
    writing = target.copy_to_table(
        table.name, source=_until_none(chunks), columns=columns[table.name], format="binary"
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(
                _read(source, _query(table, columns), slot, chunks), name="read"
            )
            tasks.create_task(writing, name="write")
    except ExceptionGroup as errors:
        raise root_cause(errors) from errors
    return reading.result()


async def content_of(
    connection: Connection, table: Table, *, columns: Columns, slot: int
) -> Content:
    """What the shard holds of the slot in this table."""
    digest = hashlib.sha256()

    async def output(chunk: bytes) -> None:
        digest.update(chunk)

    query = _query(table, columns)
    status = await connection.copy_from_query(query, slot, output=output, format="binary")
    return Content(_count(status), digest.digest())


async def remove_account(connection: Connection, *, slot: int, user_id: bytes) -> bool:
    """Remove the account's row and all that is found by it; False if the slot is not served here.

    Its queue goes first, some at a time: the rest is little, and goes at once.
    """
    while True:
        async with connection.transaction():
            if not await connection.fetchval(_IS_SERVED, slot):
                return False
            status = await connection.execute(_QUEUE_REMOVAL, user_id, _AT_ONCE)
            if _count(status):
                continue
            await connection.execute("SELECT FROM account WHERE user_id = $1 FOR UPDATE", user_id)
            for table in reversed(TABLES):
                if table.where in {_USER, _OWNER} or table.name == "account":
                    await connection.execute(_removal_of_user(table), user_id)
            return True


async def remove_rows(connection: Connection, *, slot: int) -> int:
    """Remove all rows of the slot, some at a time, and return how many. Raises StillServed."""
    removed = 0
    for table in reversed(TABLES):
        while count := await _remove_some(connection, table, slot):
            removed += count
    return removed


async def _remove_some(connection: Connection, table: Table, slot: int) -> int:
    async with connection.transaction():
        if not await connection.fetchval(_IS_NOT_SERVED, slot):
            raise StillServed(f"slot {slot} is served here")
        return _count(await connection.execute(_removal(table), slot, _AT_ONCE))


async def _read(
    source: Connection, query: str, slot: int, chunks: asyncio.Queue[bytes | None]
) -> Content:
    digest = hashlib.sha256()

    async def output(chunk: bytes) -> None:
        digest.update(chunk)
        await chunks.put(chunk)

    status = await source.copy_from_query(query, slot, output=output, format="binary")
    await chunks.put(None)
    return Content(_count(status), digest.digest())


async def _until_none(chunks: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (chunk := await chunks.get()) is not None:
        yield chunk


# The only SQL that is put together: of the names above, and of columns that the catalog names.
def _query(table: Table, columns: Columns) -> str:
    names = ", ".join(f't."{column}"' for column in columns[table.name])
    return f"SELECT {names} FROM {table.name} t WHERE {table.where} ORDER BY {table.order}"  # noqa: S608


def _removal(table: Table) -> str:
    some = f"SELECT t.ctid FROM {table.name} t WHERE {table.where} LIMIT $2"  # noqa: S608
    return f"DELETE FROM {table.name} WHERE ctid = ANY (ARRAY({some}))"  # noqa: S608


def _removal_of_user(table: Table) -> str:
    return f"DELETE FROM {table.name} WHERE user_id = $1"  # noqa: S608


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
