"""Makes accounts by the thousand, for benches and tests, by copying in what Register writes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.ids import new_ulid, slot_of, ulid_text
from mesh.postgres import Connection, acquired
from svc_message.identity.model import PRIMARY, new_registration_id
from svc_message.model import Outcome
from svc_message.shards.directory import Shards, SlotElsewhere

_CHUNK = 2_000
_ACQUIRE = timedelta(seconds=1)

_OWNED = "SELECT owned_slots($1::smallint[])"


@dataclass(frozen=True, slots=True)
class BulkAccount:
    """An account with its primary device."""

    user_id: bytes
    handle: str
    private_key: Ed25519PrivateKey = field(repr=False)
    device_id: int = PRIMARY
    credential_version: int = 1


async def bulk_register(shards: Shards, count: int) -> list[BulkAccount]:
    """Make `count` accounts. Raises SlotElsewhere if one of their slots moves meanwhile."""
    accounts = [_new_account() for _ in range(count)]
    for start in range(0, count, _CHUNK):
        await _register(shards, accounts[start : start + _CHUNK])
    return accounts


def _new_account() -> BulkAccount:
    user_id = new_ulid()
    handle = f"bulk.{ulid_text(user_id).lower()}"
    return BulkAccount(user_id, handle, Ed25519PrivateKey.generate())


async def _register(shards: Shards, accounts: Sequence[BulkAccount]) -> None:
    by_user: dict[str, list[BulkAccount]] = defaultdict(list)
    by_handle: dict[str, list[BulkAccount]] = defaultdict(list)
    for account in accounts:
        by_user[shards.shard_of(slot_of(account.user_id))].append(account)
        by_handle[shards.shard_of(slot_of(account.handle.encode()))].append(account)
    for shard, here in by_user.items():
        async with acquired(shards.pool(shard), within=_ACQUIRE) as connection:
            await _copy_accounts(connection, here)
    for shard, here in by_handle.items():
        async with acquired(shards.pool(shard), within=_ACQUIRE) as connection:
            await _copy_handles(connection, here)


async def _copy_accounts(connection: Connection, accounts: Sequence[BulkAccount]) -> None:
    slots = [slot_of(account.user_id) for account in accounts]
    async with connection.transaction():
        await _hold(connection, slots)
        await connection.copy_records_to_table(
            "account",
            columns=("user_id", "slot", "handle", "handle_claimed"),
            records=[(a.user_id, s, a.handle, True) for a, s in zip(accounts, slots, strict=True)],
        )
        await connection.copy_records_to_table(
            "device",
            columns=("user_id", "device_id", "registration_id", "public_key"),
            records=[(a.user_id, a.device_id, new_registration_id(), _public(a)) for a in accounts],
        )
        await connection.copy_records_to_table(
            "receipt_counter", columns=("user_id",), records=[(a.user_id,) for a in accounts]
        )


async def _copy_handles(connection: Connection, accounts: Sequence[BulkAccount]) -> None:
    slots = [slot_of(account.handle.encode()) for account in accounts]
    async with connection.transaction():
        await _hold(connection, slots)
        await connection.copy_records_to_table(
            "handle",
            columns=("handle", "slot", "user_id"),
            records=[(a.handle, s, a.user_id) for a, s in zip(accounts, slots, strict=True)],
        )


async def _hold(connection: Connection, slots: Iterable[int]) -> None:
    """Keep the slots where they are until the transaction ends."""
    wanted = set(slots)
    owned = await connection.fetchval(_OWNED, list(wanted))
    if len(owned) < len(wanted):
        raise SlotElsewhere(Outcome.SLOT_MOVING)


def _public(account: BulkAccount) -> bytes:
    return account.private_key.public_key().public_bytes_raw()
