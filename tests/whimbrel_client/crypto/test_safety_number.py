"""Safety numbers: alike for both, different for anybody else."""

import pytest

from whimbrel_client.crypto import MalformedMessage, SafetyNumber, UnsupportedVersion, safety_number

ALICE, BOB, EVE = (b"\x05" + bytes([i]) * 32 for i in (1, 2, 3))


def number(local: bytes, remote: bytes) -> SafetyNumber:
    return safety_number(
        local_id=local[-1:] * 16,
        local_identity=local,
        remote_id=remote[-1:] * 16,
        remote_identity=remote,
    )


def test_both_see_the_same_60_digits_and_the_codes_fit() -> None:
    alices, bobs = number(ALICE, BOB), number(BOB, ALICE)

    assert alices.digits() == bobs.digits()
    assert len(alices.digits()) == 60
    assert alices.digits().isdigit()
    assert alices.fits(bobs.scannable())
    assert bobs.fits(alices.scannable())


def test_somebody_in_between_changes_digits_and_codes() -> None:
    alices, bobs = number(ALICE, EVE), number(BOB, EVE)

    assert alices.digits() != bobs.digits()
    assert not alices.fits(bobs.scannable())
    assert not alices.fits(alices.scannable())


def test_the_number_of_known_keys_never_changes() -> None:
    assert number(ALICE, BOB).digits() == (
        "564699805009860613293150413440914804106781569489293579768880"
    )


def test_a_code_that_is_no_safety_number_is_refused() -> None:
    alices = number(ALICE, BOB)

    with pytest.raises(MalformedMessage):
        alices.fits(b"\xff\xff\xff")
    with pytest.raises(UnsupportedVersion):
        alices.fits(b"\x08\x01")
    with pytest.raises(UnsupportedVersion):
        alices.fits(b"")
