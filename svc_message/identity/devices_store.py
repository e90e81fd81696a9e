"""The rows of linking: each call goes to the slot's shard, wherever it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mesh.caller import Caller
from mesh.ids import slot_of
from svc_message.identity.devices_model import (
    MOST_DEVICES,
    LinkedDevice,
    LinkTokenInvalid,
    ProvisioningTaken,
    TooManyDevices,
)
from svc_message.identity.keys_model import DeviceKeys, KeyInvalid
from svc_message.identity.model import DeviceUnknown, SigningDevice
from svc_message.identity.slot_store import SlotStore, by, demand_linked

_LEAVE = "SELECT leave_provisioning($1, $2, $3, $4, $5) AS outcome"
_TAKE = "SELECT * FROM take_provisioning($1, $2)"
_CREATE_TOKEN = "SELECT * FROM create_link_token($1, $2, $3, $4, $5, $6, $7)"  # noqa: S105
_LINK = """
SELECT * FROM link_device($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""
_LIST = "SELECT * FROM list_devices($1, $2, $3, $4)"
_RENAME = "SELECT rename_device($1, $2, $3, $4, $5, $6) AS outcome"
_REVOKE = "SELECT * FROM revoke_device($1, $2, $3, $4, $5)"
_UNLINK_IDLE = "SELECT * FROM unlink_idle($1, $2)"
_FORGET = "SELECT forget_linking($1) AS gone"

# As sql/0005_devices.sql has them.
_TOKEN_INVALID, _TOO_MANY, _OTHER_IDENTITY, _NOTHING_THERE, _TAKEN = 60, 61, 62, 63, 64


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A device that is not linked any more: its sessions below this epoch are over."""

    user_id: bytes
    device_id: int
    below_epoch: int


class DeviceStore(SlotStore):
    """Devices on the shards. Each call may be repeated.

    Each raises ShardUnavailable or SlotMoving when it cannot be done now; where a Caller is given,
    DeviceRevoked when its credential does not hold any more.
    """

    async def leave(
        self, address: bytes, digest: bytes, ciphertext: bytes, *, lifetime: timedelta
    ) -> None:
        """Leave a ciphertext at a provisioning address. Raises ProvisioningTaken."""
        row = await self._ask(slot_of(address), _LEAVE, address, digest, ciphertext, lifetime)
        if row["outcome"] == _TAKEN:
            raise ProvisioningTaken("something else was left at the address")

    async def take(self, address: bytes) -> bytes | None:
        """Take what was left at a provisioning address."""
        row = await self._ask(slot_of(address), _TAKE, address)
        ciphertext: bytes | None = row["ciphertext"]
        return ciphertext

    async def create_link_token(
        self, caller: Caller, token_hash: bytes, *, lifetime: timedelta
    ) -> datetime:
        """Store the account's next link token; when it ends. Raises TooManyDevices."""
        row = await self._ask(
            slot_of(caller.user_id), _CREATE_TOKEN, *by(caller), token_hash, lifetime, MOST_DEVICES
        )
        demand_linked(row["outcome"])
        _demand_room(row["outcome"])
        expires_at: datetime = row["expires_at"]
        return expires_at

    async def link(
        self, user_id: bytes, token_hash: bytes, public_key: bytes, name: bytes, keys: DeviceKeys
    ) -> SigningDevice:
        """Link a device, or find it linked by the same token.

        Raises LinkTokenInvalid, TooManyDevices, KeyInvalid.
        """
        row = await self._ask(
            slot_of(user_id),
            _LINK,
            *(user_id, token_hash, public_key, name, MOST_DEVICES),
            *keys.columns,
        )
        outcome = row["outcome"]
        _demand_room(outcome)
        if outcome == _TOKEN_INVALID:
            raise LinkTokenInvalid("the link token is wrong, used, or too old")
        if outcome == _OTHER_IDENTITY:
            raise KeyInvalid(
                "not the account's identity key",
                metadata={"field": "identity_key", "allowed": "the account's"},
            )
        return SigningDevice(user_id, row["device_id"], public_key, row["credential_version"])

    async def devices(self, caller: Caller) -> list[LinkedDevice]:
        """The devices of the caller's account, ascending."""
        rows = await self._rows(slot_of(caller.user_id), _LIST, *by(caller))
        demand_linked(rows[0]["outcome"])
        return [
            LinkedDevice(
                row["device_id"],
                row["registration_id"],
                row["encrypted_name"] or b"",
                row["linked_at"],
                row["last_seen_on"],
            )
            for row in rows
        ]

    async def rename(self, caller: Caller, device_id: int, name: bytes) -> None:
        """Name a device of the caller's account. Raises DeviceUnknown."""
        row = await self._ask(slot_of(caller.user_id), _RENAME, *by(caller), device_id, name)
        demand_linked(row["outcome"])
        _demand_known(row["outcome"])

    async def revoke(self, caller: Caller, device_id: int) -> Unlinked:
        """Unlink a device of the caller's account. Raises DeviceUnknown."""
        row = await self._ask(slot_of(caller.user_id), _REVOKE, *by(caller), device_id)
        demand_linked(row["outcome"])
        _demand_known(row["outcome"])
        return Unlinked(caller.user_id, device_id, row["below_epoch"])

    async def unlink_idle(self, shard: str, *, before: date, limit: int) -> Sequence[Unlinked]:
        """Unlink devices that were not seen since. Raises STORE_ERRORS."""
        rows = await self._on_shard(shard, _UNLINK_IDLE, before, limit)
        return [Unlinked(row["user_id"], row["device_id"], row["below_epoch"]) for row in rows]

    async def forget(self, shard: str, *, limit: int) -> int:
        """Remove what was left for linking and is too old; how much. Raises STORE_ERRORS."""
        [row] = await self._on_shard(shard, _FORGET, limit)
        return int(row["gone"])


def _demand_room(outcome: int) -> None:
    if outcome == _TOO_MANY:
        raise TooManyDevices(
            "the account has as many devices as it may have",
            metadata={"allowed": str(MOST_DEVICES)},
        )


def _demand_known(outcome: int) -> None:
    if outcome == _NOTHING_THERE:
        raise DeviceUnknown("the account has no such device")
