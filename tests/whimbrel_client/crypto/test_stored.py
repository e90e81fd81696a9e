"""Stored state: read as it was written, refused when damaged or too new."""

import uuid

import pytest

from tests.whimbrel_client.crypto.people import Person
from tests.whimbrel_client.crypto.test_sessions import acquainted
from whimbrel_client.crypto import (
    Device,
    MalformedState,
    SessionRecord,
    StateTooNew,
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
    sender_keys,
    signed_prekey,
)

LOADERS = [
    load_record,
    load_sender_key,
    load_reader,
    load_device,
    load_one_time,
    load_signed,
    load_kem,
]


@pytest.mark.parametrize("with_spqr", [True, False], ids=["spqr", "no spqr"])
def test_a_record_is_read_as_it_was_written(with_spqr: bool) -> None:
    alice, bob = acquainted(with_spqr=with_spqr)
    alice.open("bob", bob.bundle(one_time=False))
    alice.encrypt("bob", b"lost")
    bob.decrypt("alice", alice.encrypt("bob", b"hello"))

    for record in (alice.record("bob"), bob.record("alice"), SessionRecord()):
        assert load_record(dump_record(record)) == record


def test_sender_keys_are_read_as_they_were_written() -> None:
    group, sender, reader = uuid.uuid4(), Person("sender"), Person("reader")
    reader.admit("sender", sender.distribute(group))
    sender.group_encrypt(group, b"lost")
    reader.group_decrypt("sender", sender.group_encrypt(group, b"hello"))

    key, chains = sender.sender_keys[group], reader.readers["sender", group.bytes]

    assert dump_sender_key(load_sender_key(key)) == key
    assert dump_reader(load_reader(chains)) == chains
    assert load_reader(chains).chains[0].skipped.keys() == {0}


def test_the_device_and_its_prekeys_are_read_as_they_were_written() -> None:
    device = Device(curve.generate(), 77)
    one_time, signed = one_time_prekey(1), signed_prekey(2, device.identity)

    assert load_device(dump_device(device)) == device
    assert load_one_time(dump_one_time(one_time)) == one_time
    assert load_signed(dump_signed(signed)) == signed
    for last_resort in (True, False):
        kem = kem_prekey(3, device.identity, last_resort=last_resort)
        assert load_kem(dump_kem(kem)) == kem


def test_the_first_byte_is_the_version() -> None:
    alice, _ = acquainted()

    assert alice.records["bob"][0] == 1


@pytest.mark.parametrize("load", LOADERS)
def test_state_of_a_later_version_is_left_alone(load: object) -> None:
    assert callable(load)
    with pytest.raises(StateTooNew):
        load(b"\x02anything")


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("stored", [b"", b"\x00", b"\x01\xff\xff"])
def test_damaged_state_is_refused(load: object, stored: bytes) -> None:
    assert callable(load)
    with pytest.raises(MalformedState):
        load(stored)


def test_a_session_whose_braid_is_in_no_state_is_refused() -> None:
    from whimbrel.crypto.v1 import state_pb2

    alice, _ = acquainted()
    state = state_pb2.SessionRecordState.FromString(alice.records["bob"][1:])
    state.current.spqr.braid.ClearField("state")

    with pytest.raises(MalformedState):
        load_record(b"\x01" + state.SerializeToString())


def test_a_sender_key_from_before_there_were_seeds_is_refused() -> None:
    from whimbrel.crypto.v1 import state_pb2

    state = state_pb2.SenderKeyState.FromString(dump_sender_key(sender_keys.create(bytes(16)))[1:])
    state.ClearField("signing_seed")
    state.signing_scalar = bytes(32)

    with pytest.raises(MalformedState, match="cannot sign"):
        load_sender_key(b"\x01" + state.SerializeToString())


def test_secrets_are_not_shown() -> None:
    alice, _ = acquainted()
    record = alice.record("bob")

    assert record.current is not None
    assert "root" not in repr(record)
    assert repr(record.current.ratchet.root) not in repr(record.current)
