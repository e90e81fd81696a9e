"""What the local store keeps of keys, as the rest of the SDK uses it; each call a transaction."""

from collections.abc import Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel.identity.v1 import keys_pb2
from whimbrel_client.crypto import InvalidSignature, KeyPair, SessionIncomplete
from whimbrel_client.database import Database
from whimbrel_client.device_keys import OwnKeys, Pools, bundles_of
from whimbrel_client.model import IdentityChange
from whimbrel_client.own_keys import own_keys, own_keys_or_new, pools
from whimbrel_client.sessions import DeviceId, Sessions
from whimbrel_client.sqlcipher import Connection

_REFUSE = """
UPDATE outgoing SET state = 2, reason = ? WHERE conversation = ? AND state = 0 AND send = x''
RETURNING id, client_message_id
"""
_DEVICE_KEY = "SELECT private FROM device_key"
_PUT_DEVICE_KEY = "INSERT OR IGNORE INTO device_key (id, private) VALUES (1, ?)"
_CHANGES = """
SELECT id, user_id, old_key, new_key, is_seen FROM identity_change WHERE id > ? ORDER BY id
"""
_SEE_CHANGE = "UPDATE identity_change SET is_seen = 1 WHERE id = ?"

ALL_DEVICES = 0


class Refusal(NamedTuple):
    """A send that was refused before it could be encrypted."""

    local_id: int
    client_message_id: bytes
    reason: str


class KeyStore:
    """Keys and sessions of one device."""

    def __init__(self, database: Database, own: DeviceId) -> None:
        self._database = database
        self._own = own

    async def device_key(self, otherwise: Ed25519PrivateKey | None) -> Ed25519PrivateKey | None:
        """The key that signs for this device; if there is none, the one given becomes it."""

        def operation(connection: Connection) -> Ed25519PrivateKey | None:
            if otherwise is not None:
                connection.execute(_PUT_DEVICE_KEY, (otherwise.private_bytes_raw(),))
            row = connection.execute(_DEVICE_KEY).fetchone()
            return None if row is None else Ed25519PrivateKey.from_private_bytes(row[0])

        return await self._database.run(operation)

    async def own_keys(self, identity: KeyPair | None = None) -> OwnKeys:
        """This device's keys, made when there are none; for the given identity, or a new one."""
        return await self._database.run(lambda c: own_keys_or_new(c, identity))

    async def new_pools(self) -> Pools:
        """New one-time keys; they are on the disk before anybody is told of them."""
        return await self._database.run(lambda c: pools(c, own_keys_or_new(c).device))

    async def lacking(self, user_id: bytes) -> list[int]:
        """The account's devices to which no session is open; ALL_DEVICES if none is known."""

        def operation(connection: Connection) -> list[int]:
            linked = Sessions(connection).linked(user_id)
            if not linked and user_id != self._own.user_id:
                return [ALL_DEVICES]
            names = [one.device_id for one in linked if not one.is_open]
            return [one for one in names if DeviceId(user_id, one) != self._own]

        return await self._database.run(operation)

    async def open_sessions(self, user_id: bytes, fetched: keys_pb2.FetchKeysResponse) -> None:
        """Open sessions by bundles. Raises InvalidKey or InvalidSignature: a bundle is forged."""
        await self._database.run(lambda c: self._open_sessions(c, user_id, fetched))

    def _open_sessions(
        self, connection: Connection, user_id: bytes, fetched: keys_pb2.FetchKeysResponse
    ) -> None:
        own, sessions = own_keys(connection), Sessions(connection)
        if own is None:
            raise SessionIncomplete("this device has no keys")
        identity = own.device.identity.public
        if user_id == self._own.user_id and fetched.identity_key != identity:
            raise InvalidSignature("the mesh says that this account has another identity")
        for device_id, bundle in bundles_of(fetched):
            name = DeviceId(user_id, device_id)
            if name != self._own and not sessions.is_open_by(name, bundle):
                sessions.open(own.device, name, bundle)
        sessions.save()

    async def unknown(self, user_id: bytes, device_id: int, reason: str) -> Sequence[Refusal]:
        """The mesh has no keys of the device, or of any: refuse what waits, or write without it."""

        def operation(connection: Connection) -> list[Refusal]:
            if device_id == ALL_DEVICES:
                refused = connection.execute(_REFUSE, (reason, user_id)).fetchall()
                return [Refusal(local_id, key, reason) for local_id, key in refused]
            sessions = Sessions(connection)
            sessions.unlink(sessions.device(DeviceId(user_id, device_id)))
            sessions.save()
            return []

        return await self._database.run(operation)

    async def identity(self, user_id: bytes) -> bytes | None:
        """The identity key of another account, if it is known here."""
        return await self._database.run(lambda c: Sessions(c).identity(user_id))

    async def identity_changes(self, after: int) -> list[IdentityChange]:
        """Identity changes above the cursor."""
        rows = await self._database.run(lambda c: c.execute(_CHANGES, (after,)).fetchall())
        return [
            IdentityChange(cursor, user_id, old_key, new_key, bool(is_seen))
            for cursor, user_id, old_key, new_key, is_seen in rows
        ]

    async def saw_identity_change(self, cursor: int) -> None:
        """The person was told of the change."""
        await self._database.run(lambda c: c.execute(_SEE_CHANGE, (cursor,)).rowcount)
