"""The sessions with other devices and the identities behind them, for one transaction.

It loads what the transaction touches and saves what has changed at its end: the database's
transaction is the lock of every session.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from whimbrel_client.crypto import (
    Bundle,
    Ciphertext,
    Device,
    PrekeyMessage,
    Received,
    SessionRecord,
    dump_record,
    load_record,
)
from whimbrel_client.sqlcipher import Connection

_DEVICES = """
SELECT device_id, registration_id, is_linked, failures, record FROM device
WHERE user_id = ? ORDER BY device_id
"""
_PUT_DEVICE = """
INSERT INTO device (user_id, device_id, registration_id, is_linked, failures, record)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (user_id, device_id) DO UPDATE
SET registration_id = excluded.registration_id, is_linked = excluded.is_linked,
    failures = excluded.failures, record = excluded.record
"""
_IDENTITY = "SELECT public_key FROM identity WHERE user_id = ?"
_PUT_IDENTITY = """
INSERT INTO identity (user_id, public_key) VALUES (?, ?)
ON CONFLICT (user_id) DO UPDATE SET public_key = excluded.public_key
"""
_ADD_CHANGE = "INSERT INTO identity_change (user_id, old_key, new_key) VALUES (?, ?, ?)"


class DeviceId(NamedTuple):
    """A device of an account."""

    user_id: bytes
    device_id: int


NOBODY = DeviceId(b"", 0)


@dataclass(slots=True)
class KnownDevice:
    """Another device, and what is shared with it."""

    device_id: int
    registration_id: int = 0
    is_linked: bool = True
    # Messages in a row that could not be read.
    failures: int = 0
    record: SessionRecord = field(default_factory=SessionRecord)
    has_changed: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self.record.current is not None


class Sessions:
    """What one transaction knows of other devices."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._accounts: dict[bytes, dict[int, KnownDevice]] = {}
        self.identity_changes = 0

    def linked(self, user_id: bytes) -> list[KnownDevice]:
        """The account's devices as they are known here, linked ones only."""
        return [device for device in self._account(user_id).values() if device.is_linked]

    def device(self, name: DeviceId) -> KnownDevice:
        """The device; a new one is kept only once something of it changes."""
        known = self._account(name.user_id)
        if name.device_id not in known:
            known[name.device_id] = KnownDevice(name.device_id, is_linked=False)
        return known[name.device_id]

    def write(self, device: KnownDevice, plaintext: bytes) -> Ciphertext:
        """Encrypt; the session after it is saved with the transaction."""
        device.record, ciphertext = device.record.encrypt(plaintext)
        device.has_changed = True
        return ciphertext

    def have_read(self, device: KnownDevice, received: Received) -> None:
        """A message of the device was read."""
        device.record = received.record
        device.failures = 0
        device.has_changed = True

    def met(self, name: DeviceId, message: PrekeyMessage) -> None:
        """The device has opened a session, and its identity is who it says."""
        device = self.device(name)
        device.registration_id = message.registration_id
        device.is_linked = True
        device.has_changed = True
        self.learn_identity(name.user_id, message.identity)

    def open(self, own: Device, name: DeviceId, bundle: Bundle) -> None:
        """Open a session by a bundle. Raises InvalidKey or InvalidSignature."""
        device = self.device(name)
        device.record = device.record.opened(own, bundle)
        device.registration_id = bundle.registration_id
        device.is_linked = True
        device.has_changed = True
        self.learn_identity(name.user_id, bundle.identity)

    def is_open_by(self, name: DeviceId, bundle: Bundle) -> bool:
        """Whether there is a session with the registration and identity of the bundle."""
        device = self.device(name)
        session = device.record.current
        return (
            session is not None
            and device.is_linked
            and device.registration_id == bundle.registration_id
            and session.ends.remote_identity == bundle.identity
        )

    def put_away(self, device: KnownDevice) -> None:
        """Write to the device no more without opening a new session."""
        device.record = device.record.put_away()
        device.has_changed = True

    def unlink(self, device: KnownDevice) -> None:
        """The device is written to no more; what it wrote before can still be read."""
        device.is_linked = False
        device.has_changed = True

    def identity(self, user_id: bytes) -> bytes | None:
        """The identity key of the account as it is known here."""
        row = self._connection.execute(_IDENTITY, (user_id,)).fetchone()
        return None if row is None else bytes(row[0])

    def learn_identity(self, user_id: bytes, public_key: bytes) -> None:
        """The account has this identity key: if another was known, its sessions end."""
        known = self.identity(user_id)
        if known == public_key:
            return
        self._connection.execute(_PUT_IDENTITY, (user_id, public_key))
        if known is None:
            return
        self._connection.execute(_ADD_CHANGE, (user_id, known, public_key))
        self.identity_changes += 1
        for device in self._account(user_id).values():
            device.record = _only_of(device.record, public_key)
            device.has_changed = True

    def save(self) -> None:
        """Keep what has changed."""
        rows = [
            (
                *(user_id, device.device_id, device.registration_id),
                *(device.is_linked, device.failures, dump_record(device.record)),
            )
            for user_id, devices in self._accounts.items()
            for device in _changed(devices.values())
        ]
        self._connection.executemany(_PUT_DEVICE, rows)

    def _account(self, user_id: bytes) -> dict[int, KnownDevice]:
        known = self._accounts.get(user_id)
        if known is None:
            rows = self._connection.execute(_DEVICES, (user_id,)).fetchall()
            known = self._accounts[user_id] = {row[0]: _device(row) for row in rows}
        return known


def _device(row: tuple[int, int, int, int, bytes]) -> KnownDevice:
    device_id, registration_id, is_linked, failures, record = row
    return KnownDevice(device_id, registration_id, bool(is_linked), failures, load_record(record))


def _only_of(record: SessionRecord, identity: bytes) -> SessionRecord:
    """Without the sessions with other identities."""
    current = record.current
    if current is not None and current.ends.remote_identity != identity:
        current = None
    return SessionRecord(
        current, tuple(one for one in record.previous if one.ends.remote_identity == identity)
    )


def _changed(devices: Iterable[KnownDevice]) -> Iterable[KnownDevice]:
    for device in devices:
        if device.has_changed:
            device.has_changed = False
            yield device
