"""The names of devices: for the account's devices only, each for the device it was given."""

import pytest

from whimbrel_client import NameTooLong
from whimbrel_client.crypto import curve
from whimbrel_client.device_names import MOST_BYTES, open_name, seal_name

IDENTITY = curve.generate()


def test_a_name_is_read_by_who_has_the_identity_key_and_by_nobody_else() -> None:
    sealed = seal_name("Anna's phone ☕", IDENTITY, 7)

    assert open_name(sealed, IDENTITY, 7) == "Anna's phone ☕"
    assert open_name(sealed, curve.generate(), 7) == ""
    assert b"phone" not in sealed


def test_a_name_that_was_put_on_another_device_is_not_believed() -> None:
    assert open_name(seal_name("phone", IDENTITY, 7), IDENTITY, 8) == ""


def test_all_names_are_as_long_as_each_other_and_fit_the_server() -> None:
    lengths = {len(seal_name("x" * count, IDENTITY, 7)) for count in (1, 20, MOST_BYTES)}

    assert len(lengths) == 1
    assert max(lengths) <= 256


def test_no_name_is_kept_as_none_and_a_longer_one_is_refused() -> None:
    assert seal_name("", IDENTITY, 7) == b""
    assert open_name(b"", IDENTITY, 7) == ""
    with pytest.raises(NameTooLong, match=str(MOST_BYTES)):
        seal_name("☕" * MOST_BYTES, IDENTITY, 7)


@pytest.mark.parametrize("sealed", [b"\x02" + b"x" * 60, b"\x01", b"\x01" + b"x" * 60])
def test_what_is_no_name_is_none(sealed: bytes) -> None:
    assert open_name(sealed, IDENTITY, 7) == ""
