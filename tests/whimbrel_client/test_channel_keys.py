"""What a channel's key seals, and for whom."""

import pytest

from mesh.ids import random_id
from whimbrel_client.channels.errors import ChannelLinkInvalid
from whimbrel_client.channels.keys import ChannelKey, channel_id_of
from whimbrel_client.crypto.curve import generate

CHANNEL, POST = bytes(range(16)), bytes(range(16, 32))
KEY = ChannelKey(CHANNEL, bytes(range(32)))


def test_a_link_carries_channel_and_key() -> None:
    assert KEY.link == (
        "whimbrel://channel/00041061050R3GG28A1C60T3GF#AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    )
    assert ChannelKey.of_link(f" {KEY.link}\n") == KEY
    assert KEY.link_key.hex() not in KEY.link
    assert "AAEC" not in repr(KEY)


@pytest.mark.parametrize(
    "link",
    [
        "",
        "https://example.org",
        KEY.link[:-1],
        KEY.link + "A",
        KEY.link.replace("#", ""),
        KEY.link.replace("/0004", "/Z004"),
        KEY.link.removeprefix("whimbrel://channel/"),
    ],
)
def test_what_is_no_link_is_refused(link: str) -> None:
    with pytest.raises(ChannelLinkInvalid):
        ChannelKey.of_link(link)


def test_a_post_is_read_in_its_place_only() -> None:
    sealed = KEY.seal_post(b"words", 1, POST)

    assert KEY.open_post(sealed, 1, POST) == b"words"
    assert KEY.open_post(sealed, 2, POST) is None
    assert KEY.open_post(sealed, 1, random_id()) is None
    assert ChannelKey(random_id(), KEY.key).open_post(sealed, 1, POST) is None
    assert ChannelKey.new(CHANNEL).open_post(sealed, 1, POST) is None
    assert KEY.open_attributes(sealed) is None
    for number in range(0, len(sealed), 7):
        forged = bytearray(sealed)
        forged[number] ^= 1
        assert KEY.open_post(bytes(forged), 1, POST) is None
    assert KEY.open_post(b"", 1, POST) is None


def test_lengths_tell_little() -> None:
    assert len({len(KEY.seal_post(b"x" * n, 1, POST)) for n in range(1, 78)}) == 1


def test_own_devices_alone_get_the_key() -> None:
    own, other = generate(), generate()
    sealed = KEY.seal_for(own)

    assert ChannelKey.opened(sealed, own, CHANNEL) == KEY
    assert ChannelKey.opened(sealed, other, CHANNEL) is None
    assert ChannelKey.opened(sealed, own, random_id()) is None  # swapped by the mesh
    assert ChannelKey.opened(b"", own, CHANNEL) is None
    assert len(sealed) <= 256


def test_the_channel_of_a_creation_is_known_before_it_is_made() -> None:
    assert channel_id_of(CHANNEL, POST).hex() == "7553517fc3376646a488dd3948c66c3c"
