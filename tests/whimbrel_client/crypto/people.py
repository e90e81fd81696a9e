"""People who use the protocol core as a device does: all they keep is bytes on a disk.

Every step loads the state and stores it again, so whatever a test does, it does across restarts.
"""

import uuid
from typing import Any

from whimbrel_client.crypto import (
    Bundle,
    Ciphertext,
    Device,
    LastResortUse,
    MessageKind,
    PrekeyMessage,
    PrivatePrekeys,
    PublicPrekey,
    Received,
    RepeatedMessage,
    SenderKeyReader,
    SessionRecord,
    curve,
    dump_device,
    dump_kem,
    dump_one_time,
    dump_reader,
    dump_record,
    dump_sender_key,
    dump_signed,
    kem_prekey,
    load_device,
    load_kem,
    load_one_time,
    load_reader,
    load_record,
    load_sender_key,
    load_signed,
    one_time_prekey,
    open_prekey,
    open_ratchet,
    sender_keys,
    signed_prekey,
)


class Person:
    """One device of one account."""

    def __init__(self, name: str = "", registration_id: int = 42, *, with_spqr: bool = True):
        self.name = name or uuid.uuid4().hex
        self._device = dump_device(Device(curve.generate(), registration_id))
        self.one_time: dict[int, bytes] = {}
        self.signed: dict[int, bytes] = {}
        self.kem: dict[int, bytes] = {}
        self.last_resort_uses: set[LastResortUse] = set()
        self.records: dict[str, bytes] = {}
        self.sender_keys: dict[uuid.UUID, bytes] = {}
        self.readers: dict[tuple[str, bytes], bytes] = {}
        self._with_spqr = with_spqr
        self._last_id = 0

    @property
    def device(self) -> Device:
        return load_device(self._device)

    @property
    def identity(self) -> bytes:
        return self.device.identity.public

    def record(self, peer: str) -> SessionRecord:
        stored = self.records.get(peer)
        return load_record(stored) if stored is not None else SessionRecord()

    def bundle(self, *, one_time: bool = True, last_resort: bool = False) -> Bundle:
        identity = self.device.identity
        signed = signed_prekey(self._next_id(), identity)
        kem = kem_prekey(self._next_id(), identity, last_resort=last_resort)
        self.signed[signed.id] = dump_signed(signed)
        self.kem[kem.id] = dump_kem(kem)
        return Bundle(
            identity=identity.public,
            registration_id=self.device.registration_id,
            signed=PublicPrekey(signed.id, signed.pair.public, signed.signature),
            kem=PublicPrekey(kem.id, kem.pair.public, kem.signature),
            one_time=self._one_time_key() if one_time else None,
        )

    def open(self, peer: str, bundle: Bundle) -> None:
        opened = self.record(peer).opened(self.device, bundle, with_spqr=self._with_spqr)
        self.records[peer] = dump_record(opened)

    def encrypt(self, peer: str, plaintext: bytes) -> Ciphertext:
        record, ciphertext = self.record(peer).encrypt(plaintext)
        self.records[peer] = dump_record(record)
        return ciphertext

    def decrypt(self, peer: str, ciphertext: Ciphertext) -> bytes:
        record = self.record(peer)
        if ciphertext.kind is MessageKind.PREKEY:
            received = self._decrypt_first(record, open_prekey(ciphertext.body))
        else:
            received = record.decrypt(open_ratchet(ciphertext.body))
        self._commit(peer, received)
        return received.plaintext

    def memory(self) -> dict[str, Any]:
        """Return all that is on the disk now, for a crash to go back to."""
        kept = ("one_time", "signed", "kem", "records", "sender_keys", "readers")
        copies = {name: dict(getattr(self, name)) for name in kept}
        return {**copies, "last_resort_uses": set(self.last_resort_uses)}

    def restart_with(self, memory: dict[str, Any]) -> None:
        """Forget all that happened since."""
        self.__dict__.update(memory)

    def distribute(self, group: uuid.UUID) -> bytes:
        if group not in self.sender_keys:
            self.sender_keys[group] = dump_sender_key(sender_keys.create(group.bytes))
        return load_sender_key(self.sender_keys[group]).distribution()

    def admit(self, peer: str, body: bytes) -> None:
        distribution = sender_keys.open_distribution(body)
        key = (peer, distribution.distribution_id)
        self.readers[key] = dump_reader(self._reader(key).admit(distribution))

    def group_encrypt(self, group: uuid.UUID, plaintext: bytes) -> bytes:
        after, ciphertext = load_sender_key(self.sender_keys[group]).encrypt(plaintext)
        self.sender_keys[group] = dump_sender_key(after)
        return ciphertext.body

    def group_decrypt(self, peer: str, body: bytes) -> bytes:
        message = sender_keys.open_message(body)
        key = (peer, message.distribution_id)
        after, plaintext = self._reader(key).decrypt(message)
        self.readers[key] = dump_reader(after)
        return plaintext

    def _decrypt_first(self, record: SessionRecord, message: PrekeyMessage) -> Received:
        if not record.needs_prekeys(message):
            return record.decrypt_first(message, self.device)
        use = LastResortUse(message.kem_id, message.signed_id, message.base_key)
        if use in self.last_resort_uses:
            raise RepeatedMessage("the last-resort key was used so before")
        return record.decrypt_first(
            message, self.device, self._prekeys(message), require_spqr=self._with_spqr
        )

    def _prekeys(self, message: PrekeyMessage) -> PrivatePrekeys | None:
        signed, kem = self.signed.get(message.signed_id), self.kem.get(message.kem_id)
        if signed is None or kem is None:
            return None
        stored = self.one_time.get(message.one_time_id or 0)
        one_time = load_one_time(stored) if stored is not None else None
        return PrivatePrekeys(load_signed(signed), load_kem(kem), one_time)

    def _commit(self, peer: str, received: Received) -> None:
        self.records[peer] = dump_record(received.record)
        spent = received.spent
        if spent is None:
            return
        if spent.one_time_id is not None:
            del self.one_time[spent.one_time_id]
        if spent.one_time_kem_id is not None:
            del self.kem[spent.one_time_kem_id]
        if spent.last_resort is not None:
            self.last_resort_uses.add(spent.last_resort)

    def _one_time_key(self) -> tuple[int, bytes]:
        prekey = one_time_prekey(self._next_id())
        self.one_time[prekey.id] = dump_one_time(prekey)
        return prekey.id, prekey.pair.public

    def _reader(self, key: tuple[str, bytes]) -> SenderKeyReader:
        stored = self.readers.get(key)
        return load_reader(stored) if stored is not None else SenderKeyReader()

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id
