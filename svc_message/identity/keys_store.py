"""The rows of public keys: each call goes to the slot's shard, wherever it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.caller import Caller
from mesh.ids import slot_of
from svc_message.identity.keys_model import Bundle, OneTimeKey, SignedKey, Upload
from svc_message.identity.slot_store import SlotStore, by, demand_linked

_OWN_KEYS = "SELECT * FROM own_keys($1, $2, $3, $4)"
_UPLOAD_KEYS = """
SELECT upload_keys($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) AS outcome
"""
_KEYED_DEVICES = "SELECT * FROM keyed_devices($1, $2, $3)"
_TAKE_KEYS = "SELECT * FROM take_keys($1, $2, $3, $4)"
_IDENTITY_KEYS = "SELECT * FROM identity_keys($1, $2, $3)"

_OTHER_IDENTITY = 62


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """What is stored of a device: all but the signatures."""

    identity_key: bytes
    signed: OneTimeKey
    last_resort: OneTimeKey
    ec_left: int
    kem_left: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What was given out for one device, and what is left of its one-time keys."""

    identity_key: bytes
    bundle: Bundle
    kem_is_one_time: bool
    ec_left: int
    kem_left: int


class KeyStore(SlotStore):
    """Keys on the shards. Each call may be repeated; a repeated `take` takes other keys.

    Each raises ShardUnavailable or SlotMoving when it cannot be done now; where a Caller is given,
    DeviceRevoked when its credential does not hold any more.
    """

    async def own_keys(self, caller: Caller) -> OwnKeys | None:
        """What is stored of the calling device; None if it was registered without keys."""
        row = await self._ask_as(caller, _OWN_KEYS)
        if row["signed_id"] is None:
            return None
        return OwnKeys(
            row["identity_key"],
            OneTimeKey(row["signed_id"], row["signed_key"]),
            OneTimeKey(row["last_resort_id"], row["last_resort_key"]),
            row["ec_left"],
            row["kem_left"],
        )

    async def upload(self, caller: Caller, identity_key: bytes, upload: Upload) -> bool:
        """Replace keys that were checked; False if the identity key is another by now."""
        row = await self._ask_as(
            caller,
            _UPLOAD_KEYS,
            identity_key,
            *_columns(upload.signed),
            *_columns(upload.last_resort),
            [key.id for key in upload.one_time],
            [key.public_key for key in upload.one_time],
            [key.id for key in upload.one_time_kem],
            [key.public_key for key in upload.one_time_kem],
            [key.signature for key in upload.one_time_kem],
        )
        return bool(row["outcome"] != _OTHER_IDENTITY)

    async def keyed_devices(self, user_id: bytes, device_id: int) -> list[tuple[int, int]]:
        """The devices with keys and their registration ids: that one, or all if it is 0."""
        rows = await self._rows(slot_of(user_id), _KEYED_DEVICES, user_id, device_id)
        return [(row["device_id"], row["registration_id"]) for row in rows]

    async def take(self, user_id: bytes, device_ids: Sequence[int], *, pools: bool) -> list[Taken]:
        """Take what opens sessions to those of these devices that have keys."""
        rows = await self._rows(slot_of(user_id), _TAKE_KEYS, user_id, device_ids, pools)
        return [_taken(row) for row in rows]

    async def identity_keys(self, user_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The identity keys of those of these accounts that have one."""
        slots = [slot_of(user_id) for user_id in user_ids]
        rows = await self._ask_each(_IDENTITY_KEYS, slots, user_ids)
        return {
            user_id: row["identity_key"]
            for user_id, row in zip(user_ids, rows, strict=True)
            if row["identity_key"] is not None
        }

    async def _ask_as(self, caller: Caller, statement: str, *arguments: object) -> Any:
        row = await self._ask(slot_of(caller.user_id), statement, *by(caller), *arguments)
        demand_linked(row["outcome"])
        return row


def _columns(key: SignedKey | None) -> tuple[int | None, bytes | None, bytes | None]:
    return (None, None, None) if key is None else (key.id, key.public_key, key.signature)


def _taken(row: Any) -> Taken:
    one_time = None if row["ec_id"] is None else OneTimeKey(row["ec_id"], row["ec_key"])
    bundle = Bundle(
        row["device_id"],
        row["registration_id"],
        SignedKey(row["signed_id"], row["signed_key"], row["signed_signature"]),
        one_time,
        SignedKey(row["kem_id"], row["kem_key"], row["kem_signature"]),
    )
    return Taken(row["identity_key"], bundle, row["kem_once"], row["ec_left"], row["kem_left"])
