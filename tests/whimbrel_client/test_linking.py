"""What a new device shows, and what it believes."""

import pytest

from whimbrel.content.v1.link_pb2 import LinkSecret
from whimbrel_client import LinkFailed
from whimbrel_client.linking import Invitation, LinkCode

SECRET = LinkSecret(user_id=b"u" * 16, handle="alice", identity_private_key=b"k" * 32)


def test_the_secret_reaches_the_device_whose_code_was_scanned() -> None:
    invitation = Invitation()

    sealed = LinkCode.read(f" {invitation.code}\n").seal(SECRET)

    assert invitation.open(sealed) == SECRET
    assert b"alice" not in sealed


@pytest.mark.parametrize("place", [0, 5, 40, -1])
def test_a_secret_that_was_altered_or_written_to_another_device_is_refused(place: int) -> None:
    invitation = Invitation()
    sealed = bytearray(invitation.code.seal(SECRET))
    elsewhere = Invitation().code.seal(SECRET)
    sealed[place] ^= 1

    for forged in (bytes(sealed), elsewhere, b"", b"\x01" * 60):
        with pytest.raises(LinkFailed):
            invitation.open(forged)


@pytest.mark.parametrize("text", ["", "whimbrel:link/1/", "whimbrel:link/1/%%%", "hello", "é"])
def test_what_is_no_link_code_is_refused(text: str) -> None:
    with pytest.raises(LinkFailed):
        LinkCode.read(text)
    with pytest.raises(LinkFailed):
        LinkCode.read(str(Invitation().code).removeprefix("whimbrel:"))
