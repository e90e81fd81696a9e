"""Registering by number: whose a number is, and what it takes to get it from somebody."""

import asyncio
import hashlib

import pytest

from mesh.caller import Caller
from mesh.errors import InvalidArgument, PermissionDenied
from svc_message.identity.buckets import RateLimited
from svc_message.identity.devices_model import DeviceRevoked
from svc_message.identity.locks import RegistrationLocks
from svc_message.identity.model import (
    CodeInvalid,
    HandleTaken,
    NumberTaken,
    RegistrationLocked,
    SignatureInvalid,
)

NUMBER, OTHER = "+4915112345678", "+4915112345679"
HASH = hashlib.sha256(NUMBER.encode()).digest()
PIN, WRONG_PIN = hashlib.sha256(b"1234").digest(), hashlib.sha256(b"4321").digest()

_FORGET_CODE = "DELETE FROM registration_code WHERE number_hash = sha256($1)"


@pytest.fixture
def holder_of(in_its_slot):
    """The account that a number leads to."""

    async def find(number):
        query = "SELECT user_id, confirmed FROM phone_number WHERE number_hash = sha256($1)"
        rows = await in_its_slot(number.encode(), query)
        assert all(confirmed for _, confirmed in rows)
        return rows[0][0] if rows else None

    return find


async def test_where_numbers_are_demanded_a_handle_is_not_enough(strict, alice) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await alice.register(strict.accounts, "alice")

    assert refusal.value.metadata["field"] == "phone_number"


async def test_a_number_leads_to_the_account_that_registered_it(
    register_by_number, strict, alice, holder_of
) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    again = await register_by_number(alice, "alice", NUMBER)

    assert again.user_id == access.user_id == await holder_of(NUMBER)
    # Its key is enough: it could get a token by Refresh as well.
    assert (await alice.register(strict.accounts, "alice")).user_id == access.user_id


async def test_a_wrong_code_makes_no_account(register_by_number, alice, holder_of, shards) -> None:
    with pytest.raises(CodeInvalid):
        await register_by_number(alice, "alice", NUMBER, code="12345")

    assert await holder_of(NUMBER) is None
    for name in shards.names:
        assert await shards.pool(name).fetchval("SELECT count(*) FROM account") == 0


async def test_a_number_without_a_code_is_refused_also_where_none_is_demanded(
    accounts, alice
) -> None:
    with pytest.raises(CodeInvalid):
        await alice.register(accounts, "alice", phone_number=NUMBER)


async def test_twins_get_one_account_and_its_number(
    register_by_number, strict, alice, holder_of
) -> None:
    await strict.codes.request(NUMBER)
    twins = [register_by_number(alice, "alice", NUMBER) for _ in range(4)]

    given = {access.user_id for access in await asyncio.gather(*twins)}

    assert given == {await holder_of(NUMBER)}


async def test_another_key_with_a_code_takes_the_account_over(
    register_by_number, strict, alice, mallory, phones, ended, in_its_slot
) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    await in_its_slot(
        access.user_id,
        "INSERT INTO device (user_id, device_id, registration_id, public_key, epoch, head_pos)"
        " VALUES ($1, 2, 7, '', 5, 0)",
    )
    await in_its_slot(
        access.user_id,
        "INSERT INTO device_queue VALUES ($1, 1, 1, 1, 0, now(), 1, 1, '', '', '', '', '')",
    )
    await in_its_slot(
        access.user_id, "UPDATE device SET head_pos = 1 WHERE user_id = $1 AND device_id = 1"
    )
    phones.codes.clear()
    await in_its_slot(NUMBER.encode(), _FORGET_CODE)

    taken = await register_by_number(mallory, "alice", NUMBER)

    devices = await in_its_slot(
        access.user_id,
        "SELECT device_id, linked, credential_version, public_key, head_pos - acked_pos"
        " FROM device WHERE user_id = $1 ORDER BY 1",
    )
    assert taken.user_id == access.user_id
    assert [tuple(row) for row in devices] == [
        (1, True, 2, mallory.public_key, 0),
        (2, False, 2, b"", 0),
    ]
    assert await in_its_slot(access.user_id, "SELECT FROM device_queue WHERE user_id = $1") == []
    assert ended.devices == [(access.user_id, 1, 1), (access.user_id, 2, 6)]
    with pytest.raises(SignatureInvalid):
        await strict.accounts.refresh(access.user_id, 1, **alice.proof_of_refresh(access.user_id))


async def test_a_token_of_the_device_before_changes_nothing_any_more(
    register_by_number, strict, alice, mallory, phones, in_its_slot
) -> None:
    old = alice.caller(await register_by_number(alice, "alice", NUMBER))
    phones.codes.clear()
    await in_its_slot(NUMBER.encode(), _FORGET_CODE)
    await register_by_number(mallory, "alice", NUMBER)
    await strict.codes.request(OTHER)

    for change in (
        strict.deleting.delete(old),
        strict.locks.set(old, PIN),
        strict.personal.set_profile(old, b"profile"),
        strict.registering.change_number(old, OTHER, phones.codes[OTHER]),
    ):
        with pytest.raises(DeviceRevoked):
            await change


async def test_whoever_has_the_number_learns_its_handle_and_nobody_else_does(
    register_by_number, alice, mallory, strict, phones, in_its_slot
) -> None:
    await register_by_number(alice, "alice", NUMBER)
    with pytest.raises(CodeInvalid):
        await register_by_number(mallory, "mallory", NUMBER)
    phones.codes.clear()
    await in_its_slot(NUMBER.encode(), _FORGET_CODE)

    with pytest.raises(NumberTaken) as refusal:
        await register_by_number(mallory, "mallory", NUMBER)

    assert refusal.value.metadata == {"handle": "alice"}


async def test_a_number_does_not_lead_to_somebody_else_s_handle(
    register_by_number, alice, mallory, holder_of
) -> None:
    await register_by_number(alice, "alice", NUMBER)

    with pytest.raises(HandleTaken):
        await register_by_number(mallory, "alice", OTHER)

    assert await holder_of(OTHER) is None


async def test_a_locked_number_needs_its_pin(
    register_by_number, strict, alice, mallory, phones, in_its_slot
) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    await strict.locks.set(alice.caller(access), PIN)
    phones.codes.clear()
    await in_its_slot(NUMBER.encode(), _FORGET_CODE)

    for lock in (b"", WRONG_PIN):
        for handle in ("alice", "mallory"):
            with pytest.raises(RegistrationLocked):
                await register_by_number(mallory, handle, NUMBER, registration_lock=lock)
    taken = await register_by_number(mallory, "alice", NUMBER, registration_lock=PIN)

    assert taken.user_id == access.user_id


async def test_five_wrong_pins_end_the_trying_for_a_day(strict, alice, register_by_number) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    await strict.locks.set(alice.caller(access), PIN)
    guesses = [strict.locks.check(access.user_id, WRONG_PIN) for _ in range(8)]

    outcomes = await asyncio.gather(*guesses, return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == (
        ["RateLimited"] * 3 + ["RegistrationLocked"] * 5
    )
    with pytest.raises(RateLimited) as refusal:
        await strict.locks.check(access.user_id, PIN)
    assert refusal.value.retry_after.total_seconds() > 0
    # Who shows no PIN tries none; and a new one counts anew.
    with pytest.raises(RegistrationLocked):
        await strict.locks.check(access.user_id, b"")
    await strict.locks.set(alice.caller(access), WRONG_PIN)
    await strict.locks.check(access.user_id, WRONG_PIN)


async def test_a_lock_that_was_removed_holds_nobody(strict, alice, register_by_number) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    await strict.locks.set(alice.caller(access), PIN)
    await strict.locks.set(alice.caller(access), b"")

    await strict.locks.check(access.user_id, b"")


async def test_the_pin_is_not_stored(strict, alice, register_by_number, in_its_slot) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    await strict.locks.set(alice.caller(access), PIN)

    [[row]] = await in_its_slot(access.user_id, "SELECT a::text FROM account a WHERE user_id = $1")

    assert PIN.hex() not in row
    assert hashlib.sha256(PIN).hexdigest() not in row


async def test_only_the_primary_locks() -> None:
    locks = RegistrationLocks(None)

    with pytest.raises(PermissionDenied):
        await locks.set(Caller(bytes(16), 2, 1), PIN)


async def test_a_number_changes_and_the_old_one_comes_free(
    register_by_number, strict, alice, phones, holder_of
) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    await strict.codes.request(OTHER)

    for _ in range(2):  # a repetition changes nothing
        await strict.registering.change_number(alice.caller(access), OTHER, phones.codes[OTHER])

    assert await holder_of(OTHER) == access.user_id
    assert await holder_of(NUMBER) is None


async def test_a_number_changes_only_to_a_free_one_and_with_its_code(
    register_by_number, strict, alice, mallory, phones, holder_of, in_its_slot
) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    other = await register_by_number(mallory, "mallory", OTHER)
    await in_its_slot(OTHER.encode(), _FORGET_CODE)
    await strict.codes.request(OTHER)

    with pytest.raises(CodeInvalid):
        await strict.registering.change_number(alice.caller(access), OTHER, "12345")
    with pytest.raises(NumberTaken):
        await strict.registering.change_number(alice.caller(access), OTHER, phones.codes[OTHER])
    with pytest.raises(PermissionDenied):
        await strict.registering.change_number(alice.caller(access, 2), OTHER, "12345")

    assert await holder_of(NUMBER) == access.user_id
    assert await holder_of(OTHER) == other.user_id


async def test_a_crash_while_numbers_change_is_settled_by_the_sweep(
    register_by_number, strict, alice, in_its_slot, holder_of
) -> None:
    access = await register_by_number(alice, "alice", NUMBER)
    # The new number was claimed and the old one doubted; the account had not said so yet.
    insert = "INSERT INTO phone_number VALUES (sha256($1), $2, $3, $4, now() - interval '2 hours')"
    slot = int.from_bytes(hashlib.sha256(OTHER.encode()).digest()[:8], "big") % 16384
    await in_its_slot(OTHER.encode(), insert, slot, access.user_id, False)
    await in_its_slot(
        NUMBER.encode(),
        "UPDATE phone_number SET confirmed = false, changed_at = now() - interval '2 hours'"
        " WHERE number_hash = sha256($1)",
    )

    await strict.sweep.round()

    assert await holder_of(NUMBER) == access.user_id
    assert await holder_of(OTHER) is None


async def test_a_claim_that_a_crash_left_keeps_nobody_from_the_number(
    register_by_number, alice, mallory, accounts, in_its_slot, holder_of
) -> None:
    left = await alice.register(accounts, "alice")
    slot = int.from_bytes(HASH[:8], "big") % 16384
    await in_its_slot(
        NUMBER.encode(),
        "INSERT INTO phone_number VALUES (sha256($1), $2, $3)",
        slot,
        left.user_id,
    )

    access = await register_by_number(mallory, "mallory", NUMBER)

    assert await holder_of(NUMBER) == access.user_id
