"""Safety numbers, compared with those of the real libsignal."""

import os

import pytest

from tests.whimbrel_client.crypto.libsignal.peer import Libsignal
from whimbrel_client.crypto import curve, safety_number

pytestmark = pytest.mark.timeout(300)


def test_both_compute_the_same_digits_and_codes(libsignal: Libsignal) -> None:
    for _ in range(5):
        ours, theirs = curve.generate().public, curve.generate().public
        our_id, their_id = os.urandom(16), os.urandom(16)

        number = safety_number(
            local_id=our_id, local_identity=ours, remote_id=their_id, remote_identity=theirs
        )

        digits, code = libsignal.safety_number(
            local_id=their_id, local_key=theirs, remote_id=our_id, remote_key=ours
        )
        assert number.digits() == digits
        assert number.fits(code)
        _, our_code = libsignal.safety_number(
            local_id=our_id, local_key=ours, remote_id=their_id, remote_key=theirs
        )
        assert number.scannable() == our_code
