"""The rows of accounts and handles: each call goes to the slot's shard, wherever it is."""

from datetime import timedelta
from typing import Any

from mesh.ids import slot_of
from svc_message.identity.keys_model import DeviceKeys
from svc_message.identity.model import (
    PRIMARY,
    EndedSession,
    NewAccount,
    Registered,
    SigningDevice,
    new_registration_id,
)
from svc_message.identity.slot_store import SlotStore
from svc_message.model import Outcome

_MAKE_ACCOUNT = "SELECT make_account($1, $2, $3, $4, $5, $6) AS outcome"
_MAKE_ACCOUNT_WITH_KEYS = (
    "SELECT make_account_with_keys($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS outcome"
)
_CLAIM_HANDLE = "SELECT outcome, user_id FROM claim_handle($1, $2, $3)"
_FIND_HANDLE = "SELECT outcome, user_id FROM find_handle($1, $2)"
_RELEASE_HANDLE = "SELECT release_handle($1, $2, $3) AS outcome"
_CONFIRM_HANDLE = "SELECT confirm_handle($1, $2) AS outcome"
_REMOVE_UNCLAIMED = "SELECT remove_unclaimed($1, $2) AS outcome"
_SIGNING_DEVICE = "SELECT * FROM signing_device($1, $2, $3)"
_MARK_SEEN = "SELECT mark_seen($1, $2, $3) AS outcome"
_UNCLAIMED = "SELECT user_id, handle FROM unclaimed_accounts($1, $2)"
_REGISTERED = "SELECT outcome, handle, number_hash, public_key FROM registered($1, $2)"
_REGISTER_AGAIN = (
    "SELECT outcome, devices, epochs"
    " FROM register_again($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
)


class AccountGone(Exception):
    """There is no such account."""


class AccountStore(SlotStore):
    """Accounts on the shards. Each call may be repeated.

    Each raises ShardUnavailable or SlotMoving when it cannot be done now.
    """

    async def make_account(self, account: NewAccount) -> None:
        """Write the account and its primary device; its handle is not its own yet."""
        user_id, handle, public_key = account.user_id, account.handle, account.public_key
        rest: tuple[object, ...]
        if account.keys is None:
            rest = (account.registration_id, public_key, account.has_queue)
            await self._ask(slot_of(user_id), _MAKE_ACCOUNT, user_id, handle, *rest)
        else:
            rest = (public_key, *account.keys.columns)
            await self._ask(slot_of(user_id), _MAKE_ACCOUNT_WITH_KEYS, user_id, handle, *rest)

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
        return SigningDevice(
            user_id, device_id, row["public_key"], row["credential_version"], row["is_seen"]
        )

    async def mark_seen(self, device: SigningDevice) -> None:
        """Note that the device has proved itself today."""
        await self._ask(slot_of(device.user_id), _MARK_SEEN, device.user_id, device.device_id)

    async def registered(self, user_id: bytes) -> Registered | None:
        """What registering the account again depends on; None if it is gone."""
        row = await self._ask(slot_of(user_id), _REGISTERED, user_id)
        if row["outcome"] == Outcome.GONE:
            return None
        return Registered(user_id, row["handle"], row["number_hash"], row["public_key"])

    async def register_again(
        self, user_id: bytes, public_key: bytes, keys: DeviceKeys | None
    ) -> list[EndedSession]:
        """Give the account another primary device, or its primary these keys.

        Returns the sessions that end by it; raises AccountGone.
        """
        columns: tuple[Any, ...] = (None, new_registration_id(), *[None] * 6)
        if keys is not None:
            columns = keys.columns
        identity_key, registration_id, *rest = columns
        arguments = (public_key, registration_id, identity_key, *rest)
        row = await self._ask(slot_of(user_id), _REGISTER_AGAIN, user_id, *arguments)
        if row["outcome"] != Outcome.DONE:
            raise AccountGone
        return ended_sessions(user_id, row)

    async def unclaimed(
        self, shard: str, *, older_than: timedelta, limit: int
    ) -> list[tuple[bytes, str]]:
        """Accounts on the shard, with the handles they may have. Raises STORE_ERRORS."""
        rows = await self._on_shard(shard, _UNCLAIMED, older_than, limit)
        return [(row["user_id"], row["handle"]) for row in rows]


def ended_sessions(user_id: bytes, row: Any) -> list[EndedSession]:
    """The sessions that a function names by devices and epochs."""
    return [
        EndedSession(user_id, device_id, below_epoch)
        for device_id, below_epoch in zip(row["devices"] or (), row["epochs"] or (), strict=True)
    ]


def _handle_slot(handle: str) -> int:
    return slot_of(handle.encode())
