"""The rows of accounts, handles and devices: each call goes to the slot's shard, wherever it is."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from mesh.ids import slot_of
from mesh.postgres import Connection, acquired
from svc_message.identity.model import PRIMARY, NewAccount, SigningDevice
from svc_message.model import Outcome
from svc_message.shards.directory import Shards, SlotElsewhere

_ACQUIRE = timedelta(seconds=1)

_MAKE_ACCOUNT = "SELECT make_account($1, $2, $3, $4, $5, $6) AS outcome"
_CLAIM_HANDLE = "SELECT outcome, user_id FROM claim_handle($1, $2, $3)"
_FIND_HANDLE = "SELECT outcome, user_id FROM find_handle($1, $2)"
_RELEASE_HANDLE = "SELECT release_handle($1, $2, $3) AS outcome"
_CONFIRM_HANDLE = "SELECT confirm_handle($1, $2) AS outcome"
_REMOVE_UNCLAIMED = "SELECT remove_unclaimed($1, $2) AS outcome"
_SIGNING_DEVICE = "SELECT outcome, public_key, credential_version FROM signing_device($1, $2, $3)"
_UNCLAIMED = "SELECT user_id, handle FROM unclaimed_accounts($1, $2)"


class AccountGone(Exception):
    """There is no such account."""


class AccountStore:
    """Accounts on the shards. Each call may be repeated.

    Each raises ShardUnavailable or SlotMoving when it cannot be done now.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    @property
    def shards(self) -> Sequence[str]:
        """The shards that hold accounts."""
        return self._shards.names

    async def make_account(self, account: NewAccount) -> None:
        """Write the account and its primary device; its handle is not its own yet."""
        await self._ask(
            slot_of(account.user_id),
            _MAKE_ACCOUNT,
            account.user_id,
            account.handle,
            account.registration_id,
            account.public_key,
            account.has_queue,
        )

    async def claim_handle(self, handle: str, user_id: bytes) -> bytes:
        """Give the handle to the account unless another has it; return which has it now."""
        row = await self._ask(_handle_slot(handle), _CLAIM_HANDLE, handle, user_id)
        owner: bytes = row["user_id"]
        return owner

    async def find_handle(self, handle: str) -> bytes | None:
        """The account that has the handle."""
        row = await self._ask(_handle_slot(handle), _FIND_HANDLE, handle)
        owner: bytes | None = row["user_id"]
        return owner

    async def release_handle(self, handle: str, user_id: bytes) -> None:
        """Free the handle if the account, which is gone, still has it."""
        await self._ask(_handle_slot(handle), _RELEASE_HANDLE, handle, user_id)

    async def confirm_handle(self, user_id: bytes) -> None:
        """Note that the account has its handle. Raises AccountGone."""
        row = await self._ask(slot_of(user_id), _CONFIRM_HANDLE, user_id)
        if row["outcome"] == Outcome.GONE:
            raise AccountGone

    async def remove_unclaimed(self, user_id: bytes) -> None:
        """Remove the account unless it is known to have its handle."""
        await self._ask(slot_of(user_id), _REMOVE_UNCLAIMED, user_id)

    async def signing_device(
        self, user_id: bytes, device_id: int = PRIMARY
    ) -> SigningDevice | None:
        """The device if it is linked and signs for a person. Raises AccountGone."""
        row = await self._ask(slot_of(user_id), _SIGNING_DEVICE, user_id, device_id)
        if row["outcome"] == Outcome.GONE:
            raise AccountGone
        if row["outcome"] != Outcome.DONE:
            return None
        return SigningDevice(user_id, device_id, row["public_key"], row["credential_version"])

    async def unclaimed(
        self, shard: str, *, older_than: timedelta, limit: int
    ) -> list[tuple[bytes, str]]:
        """Accounts on the shard, with the handles they may have. Raises Unavailable."""
        async with acquired(self._shards.pool(shard), within=_ACQUIRE) as connection:
            rows = await connection.fetch(_UNCLAIMED, older_than, limit)
        return [(row["user_id"], row["handle"]) for row in rows]

    async def _ask(self, slot: int, statement: str, *arguments: object) -> Any:
        async def work(connection: Connection) -> Any:
            row = await connection.fetchrow(statement, slot, *arguments)
            if row["outcome"] in (Outcome.SLOT_MOVING, Outcome.SLOT_MOVED):
                raise SlotElsewhere(row["outcome"])
            return row

        return await self._shards.on_slot(slot, work)


def _handle_slot(handle: str) -> int:
    return slot_of(handle.encode())
