"""The primary's keys: written with its account or not at all, and replaced with its owner."""

from dataclasses import replace

import pytest

from svc_message.identity.keys_model import KeyInvalid, KeySignatureInvalid
from svc_message.identity.model import SignatureInvalid
from tests.svc_message.devices.key_making import an_identity, device_keys

NUMBER = "+4915112345678"
_KEYS = (
    "SELECT a.identity_key, d.registration_id, k.signed_key, k.last_resort_key"
    " FROM account a JOIN device d USING (user_id) LEFT JOIN device_keys k USING (user_id,"
    " device_id) WHERE user_id = $1 AND device_id = 1"
)


async def _stored(in_its_slot, access) -> tuple:
    [row] = await in_its_slot(access.user_id, _KEYS)
    return tuple(row)


def _columns(keys) -> tuple:
    return (
        keys.identity_key,
        keys.registration_id,
        keys.signed.public_key,
        keys.last_resort.public_key,
    )


async def test_the_keys_are_there_with_the_account(accounts, alice, in_its_slot) -> None:
    keys = device_keys(an_identity())

    access = await alice.register(accounts, "alice", **alice.proof_with_keys("alice", "", keys))

    assert await _stored(in_its_slot, access) == _columns(keys)


async def test_an_account_without_keys_gets_them_by_its_device_key(
    accounts, alice, in_its_slot, ended
) -> None:
    access = await alice.register(accounts, "alice")
    keys = device_keys(an_identity())
    proof = alice.proof_with_keys("alice", "", keys)

    for _ in range(2):
        await alice.register(accounts, "alice", **proof)

    assert await _stored(in_its_slot, access) == _columns(keys)
    assert ended.devices == []


async def test_another_identity_of_the_same_device_unlinks_the_devices_of_the_old_one(
    accounts, alice, in_its_slot, ended, verifier
) -> None:
    first, second = device_keys(an_identity()), device_keys(an_identity())
    access = await alice.register(accounts, "alice", **alice.proof_with_keys("alice", "", first))
    await in_its_slot(
        access.user_id,
        "INSERT INTO device (user_id, device_id, registration_id, public_key, epoch)"
        " VALUES ($1, 2, 7, '', 5)",
    )

    again = await alice.register(accounts, "alice", **alice.proof_with_keys("alice", "", second))

    assert await _stored(in_its_slot, access) == _columns(second)
    assert [device[:2] for device in ended.devices] == [(access.user_id, 2)]
    assert verifier.verify(again.token).credential_version == 1


async def test_whoever_takes_an_account_over_without_keys_leaves_none(
    register_by_number, alice, mallory, in_its_slot, phones
) -> None:
    keys = device_keys(an_identity())
    access = await register_by_number(
        alice, "alice", NUMBER, **alice.proof_with_keys("alice", NUMBER, keys)
    )
    await in_its_slot(access.user_id, "INSERT INTO one_time_prekey VALUES ($1, 1, 0, 1, 'key')")
    phones.codes.clear()
    await in_its_slot(
        NUMBER.encode(), "DELETE FROM registration_code WHERE number_hash = sha256($1)"
    )

    await register_by_number(mallory, "alice", NUMBER)

    identity_key, _, *rest = await _stored(in_its_slot, access)
    assert [identity_key, *rest] == [None, None, None]
    assert await in_its_slot(access.user_id, "SELECT FROM one_time_prekey WHERE user_id = $1") == []


async def test_keys_that_are_not_signed_for_are_refused(unstored, alice) -> None:
    keys, others = device_keys(an_identity()), device_keys(an_identity())
    proof = alice.proof_with_keys("alice", "", keys)

    for changed in (
        {"keys": others},
        {"keys": None},
        {"phone_number": NUMBER},
        {"signature": alice.proof_of_register("alice")["signature"]},
    ):
        with pytest.raises(SignatureInvalid):
            await alice.register(unstored, "alice", **{**proof, **changed})


async def test_keys_that_no_identity_has_signed_are_refused(unstored, alice) -> None:
    keys, others = device_keys(an_identity()), device_keys(an_identity())
    forged = replace(keys, signed=others.signed)
    malformed = replace(keys, identity_key=b"\5" + bytes(31))

    with pytest.raises(KeySignatureInvalid):
        await alice.register(unstored, "alice", **alice.proof_with_keys("alice", "", forged))
    with pytest.raises(KeyInvalid):
        await alice.register(unstored, "alice", **alice.proof_with_keys("alice", "", malformed))
