import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.ids import SLOTS, new_ulid, parse_ulid, random_id, slot_of, ulid_text

ids = st.binary(min_size=16, max_size=16)


@given(ids)
def test_text_gives_back_the_id_in_either_case(ulid):
    assert parse_ulid(ulid_text(ulid)) == ulid
    assert parse_ulid(ulid_text(ulid).lower()) == ulid


@given(ids, ids)
def test_text_sorts_as_the_bytes_do(first, second):
    assert (first < second) == (ulid_text(first) < ulid_text(second))


def test_the_text_is_that_of_the_ulid_specification():
    assert ulid_text(bytes.fromhex("0163d5c82d0b3f5a6fcb3f6b7e0f1a2c"))[:10] == "01CFAWGB8B"
    assert ulid_text(b"\xff" * 16) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


@pytest.mark.parametrize(
    "text", ["", "0" * 25, "0" * 27, "8" + "0" * 25, "U" + "0" * 25, "é" + "0" * 25, "0" * 25 + "I"]
)
def test_text_that_is_no_id_is_refused(text):
    with pytest.raises(ValueError, match="an id has"):
        parse_ulid(text)


@given(st.binary(max_size=40).filter(lambda raw: len(raw) != 16))
def test_bytes_of_another_length_have_no_text(raw):
    with pytest.raises(ValueError, match="16 bytes"):
        ulid_text(raw)


def test_a_new_id_holds_its_time_and_is_unique():
    before = int(time.time() * 1000)
    made = {new_ulid() for _ in range(1000)}

    assert len(made) == 1000
    assert all(0 <= int.from_bytes(ulid[:6], "big") - before < 5000 for ulid in made)
    assert new_ulid(1)[:6] == b"\0\0\0\0\0\1"


def test_a_random_id_has_sixteen_bytes():
    assert len({random_id() for _ in range(1000)}) == 1000
    assert len(random_id()) == 16


@given(st.binary())
def test_a_slot_is_the_first_eight_bytes_of_the_digest(key):
    number = int(hashlib.sha256(key).hexdigest()[:16], 16)

    assert slot_of(key) == number % SLOTS


def test_slots_are_the_same_for_ever():
    # A change here would look for every account in the wrong place.
    assert [slot_of(b""), slot_of(b"whimbrel"), slot_of(b"\0" * 16)] == [7188, 7913, 7637]
