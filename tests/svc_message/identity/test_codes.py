"""One-time codes: which are right, how often one may try, and how often one may ask."""

import asyncio
import hashlib
from datetime import timedelta

import pytest

from mesh.errors import Unimplemented
from svc_message.identity.buckets import RateLimited
from svc_message.identity.code_senders import CodeNotSent
from svc_message.identity.codes import Codes
from svc_message.identity.model import CodeInvalid
from svc_message.identity.numbers import number_hash

NUMBER = "+4915112345678"
HASH = hashlib.sha256(NUMBER.encode()).digest()
KEY, OTHER_KEY = b"k" * 32, b"o" * 32


@pytest.fixture
def codes(identity) -> Codes:
    return identity.codes


@pytest.fixture
def change(in_its_slot):
    """Changes the row of the number's code."""

    async def run(assignment):
        await in_its_slot(
            NUMBER.encode(),
            f"UPDATE registration_code SET {assignment} WHERE number_hash = sha256($1)",
        )

    return run


def wrong(code) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


async def test_a_code_that_was_sent_is_right(codes, phones) -> None:
    issued = await codes.request(NUMBER)

    await codes.check(HASH, phones.codes[NUMBER], for_key=KEY)

    assert len(phones.codes[NUMBER]) == 6
    assert issued.expires_at - issued.next_at == timedelta(minutes=9)


async def test_a_wrong_code_and_the_code_of_another_number_are_refused(codes, phones) -> None:
    other = "+4915112345679"
    await codes.request(NUMBER)
    await codes.request(other)

    for guess in (wrong(phones.codes[NUMBER]), phones.codes[other], "", "123"):
        with pytest.raises(CodeInvalid):
            await codes.check(HASH, guess, for_key=KEY)


async def test_a_number_without_a_code_has_none_that_is_right(codes) -> None:
    with pytest.raises(CodeInvalid):
        await codes.check(HASH, "000000", for_key=KEY)


async def test_an_expired_code_is_refused(codes, phones, change) -> None:
    await codes.request(NUMBER)
    await change("expires_at = clock_timestamp()")

    with pytest.raises(CodeInvalid):
        await codes.check(HASH, phones.codes[NUMBER], for_key=KEY)


async def test_a_used_code_is_refused_but_to_the_key_that_used_it(codes, phones) -> None:
    await codes.request(NUMBER)
    code = phones.codes[NUMBER]
    await codes.check(HASH, code, for_key=KEY)

    with pytest.raises(CodeInvalid):
        await codes.check(HASH, code, for_key=OTHER_KEY)
    await codes.check(HASH, code, for_key=KEY)


async def test_of_two_who_know_a_code_one_uses_it(codes, phones) -> None:
    await codes.request(NUMBER)
    code = phones.codes[NUMBER]

    outcomes = await asyncio.gather(
        codes.check(HASH, code, for_key=KEY),
        codes.check(HASH, code, for_key=OTHER_KEY),
        return_exceptions=True,
    )

    assert sorted(map(type, outcomes), key=str) == [type(None), CodeInvalid]


async def test_after_five_guesses_even_the_right_code_is_refused(codes, phones) -> None:
    await codes.request(NUMBER)
    code = phones.codes[NUMBER]

    for _ in range(5):
        with pytest.raises(CodeInvalid):
            await codes.check(HASH, wrong(code), for_key=OTHER_KEY)

    with pytest.raises(CodeInvalid):
        await codes.check(HASH, code, for_key=KEY)


async def test_guesses_at_once_are_counted_one_by_one(codes, phones) -> None:
    await codes.request(NUMBER)
    code = phones.codes[NUMBER]
    guesses = [wrong(code)] * 19 + [code]

    outcomes = await asyncio.gather(
        *(codes.check(HASH, guess, for_key=KEY) for guess in guesses), return_exceptions=True
    )

    assert sum(isinstance(outcome, CodeInvalid) for outcome in outcomes) >= 19
    with pytest.raises(CodeInvalid):
        await codes.check(HASH, code, for_key=KEY)


async def test_the_right_code_costs_no_try(codes, phones) -> None:
    await codes.request(NUMBER)

    for _ in range(7):
        await codes.check(HASH, phones.codes[NUMBER], for_key=KEY)


async def test_a_second_code_has_to_wait_and_ends_the_first(codes, phones, change) -> None:
    await codes.request(NUMBER)
    first = phones.codes[NUMBER]

    with pytest.raises(RateLimited) as refusal:
        await codes.request(NUMBER)
    await change("next_at = clock_timestamp()")
    await codes.request(NUMBER)

    assert refusal.value.retry_after is not None
    if phones.codes[NUMBER] != first:
        with pytest.raises(CodeInvalid):
            await codes.check(HASH, first, for_key=KEY)
    await codes.check(HASH, phones.codes[NUMBER], for_key=KEY)


async def test_of_many_who_ask_at_once_one_gets_a_code(codes) -> None:
    asked = [codes.request(NUMBER) for _ in range(10)]

    outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert sum(isinstance(outcome, RateLimited) for outcome in outcomes) == 9


async def test_a_number_gets_ten_codes_a_day(codes, change) -> None:
    for _ in range(10):
        await codes.request(NUMBER)
        await change("next_at = clock_timestamp()")

    with pytest.raises(RateLimited):
        await codes.request(NUMBER)
    await change("counted_from = clock_timestamp() - interval '1 day'")
    await codes.request(NUMBER)


async def test_a_code_that_could_not_be_sent_counts_for_nothing(codes, phones) -> None:
    phones.is_down = True
    for _ in range(12):
        with pytest.raises(CodeNotSent):
            await codes.request(NUMBER)
    phones.is_down = False

    await codes.request(NUMBER)

    await codes.check(HASH, phones.codes[NUMBER], for_key=KEY)


async def test_neither_the_code_nor_the_number_is_stored(codes, phones, in_its_slot) -> None:
    await codes.request(NUMBER)

    rows = await in_its_slot(
        NUMBER.encode(), "SELECT c::text FROM registration_code c WHERE number_hash = sha256($1)"
    )

    [[row]] = rows
    assert phones.codes[NUMBER] not in row
    assert NUMBER.strip("+") not in row
    assert phones.codes[NUMBER].encode().hex() not in row
    assert hashlib.sha256(phones.codes[NUMBER].encode()).hexdigest() not in row


async def test_old_codes_are_swept(codes, change, in_its_slot) -> None:
    await codes.request(NUMBER)
    query = "SELECT FROM registration_code WHERE number_hash = sha256($1)"
    await codes.sweep()
    before = await in_its_slot(NUMBER.encode(), query)
    old = "clock_timestamp() - interval '25 hours'"
    await change(f"counted_from = {old}, expires_at = {old}")

    await codes.sweep()

    assert len(before) == 1
    assert await in_its_slot(NUMBER.encode(), query) == []


async def test_where_no_sender_is_set_no_codes_are_sent() -> None:
    with pytest.raises(Unimplemented):
        await Codes(None, None).request(NUMBER)


def test_a_number_is_known_by_its_hash() -> None:
    assert number_hash(NUMBER) == HASH
