"""Where the key of a store is kept, and what happens when it is not there, or another one is."""

import json
import logging
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.null import Keyring as NoRing
from keyring.errors import KeyringLocked

from whimbrel_client import (
    Protection,
    StoreKeyFailed,
    StoreKeyMissing,
    StoreKeyUnsafe,
    StoreKeyWrong,
)
from whimbrel_client.store import Store
from whimbrel_client.store_key import BY_ITSELF, StoreKey, store_key

PASSPHRASE = "na\u00efve horse battery"


class Ring(KeyringBackend):
    """A key ring in memory."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.is_locked:
            raise KeyringLocked("locked")
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class PlainFile(Ring):
    """What calls itself a key ring and is less than one."""

    priority = 0.5  # type: ignore[assignment]


@pytest.fixture
def ring():
    before = keyring.get_keyring()
    ring = Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def open_and_close(path: Path, protection: Protection = BY_ITSELF) -> None:
    store = Store(path, protection)
    await store.open()
    await store.remember(b"b" * 16, "bob")
    await store.close()


def card_of(path: Path) -> dict[str, object]:
    return json.loads(path.with_suffix(".key").read_bytes())


async def test_without_a_key_ring_the_key_is_in_a_file_for_the_owner_only(path: Path) -> None:
    await open_and_close(path)
    await open_and_close(path)

    assert card_of(path)["kept"] == "file"
    assert path.with_suffix(".key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
async def test_a_key_file_that_others_may_read_is_refused(path: Path, mode: int) -> None:
    await open_and_close(path)
    path.with_suffix(".key").chmod(mode)

    with pytest.raises(StoreKeyUnsafe, match=f"store.key has mode {mode:04o}.*make it 0600"):
        await open_and_close(path)


async def test_a_passphrase_is_kept_nowhere_and_needed_each_time(path: Path) -> None:
    await open_and_close(path, Protection(PASSPHRASE))

    with pytest.raises(StoreKeyMissing, match="none was given"):
        await open_and_close(path)
    with pytest.raises(StoreKeyWrong, match="not opened by this passphrase") as wrong:
        await open_and_close(path, Protection("another horse"))
    # As a keyboard writes it that puts the dots after the letter.
    await open_and_close(path, Protection(PASSPHRASE.replace("\u00ef", "i\u0308")))

    assert "another horse" not in str(wrong.value)
    assert not any(PASSPHRASE.encode() in file.read_bytes() for file in path.parent.iterdir())


async def test_a_passphrase_that_protects_nothing_is_not_let_pass(path: Path) -> None:
    await open_and_close(path)

    with pytest.raises(StoreKeyWrong, match=r"by the key in .*store.key, not by a passphrase"):
        await open_and_close(path, Protection(PASSPHRASE))
    with pytest.raises(ValueError, match="empty"):
        Protection("")


async def test_a_store_without_its_card_gets_no_second_key(path: Path) -> None:
    await open_and_close(path)
    path.with_suffix(".key").unlink()

    with pytest.raises(StoreKeyMissing, match=r"store.key is gone"):
        await open_and_close(path)

    assert not path.with_suffix(".key").exists()


async def test_the_key_of_another_store_opens_nothing_and_harms_nothing(
    path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await open_and_close(path)
    other = tmp_path / "other" / "store.db"
    await open_and_close(other)
    content, own = path.read_bytes(), path.with_suffix(".key").read_bytes()
    path.with_suffix(".key").write_bytes(other.with_suffix(".key").read_bytes())

    with pytest.raises(StoreKeyWrong, match=r"store.db is not opened by the key in .*store.key"):
        await open_and_close(path)

    assert path.read_bytes() == content
    assert capfd.readouterr().err == ""
    path.with_suffix(".key").write_bytes(own)
    await open_and_close(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda card: b"",
        lambda card: b"[]",
        lambda card: json.dumps({**card, "version": 2}).encode(),
        lambda card: json.dumps({**card, "kept": "under the mat"}).encode(),
        lambda card: json.dumps({**card, "key": card["key"][:-2]}).encode(),
        lambda card: json.dumps({**card, "key": "x" + card["key"][1:]}).encode(),
        lambda card: json.dumps({**card, "kept": "passphrase", "salt": "00", "cost": {}}).encode(),
    ],
)
async def test_a_damaged_card_is_told_without_its_content(path: Path, damage) -> None:
    await open_and_close(path)
    card = card_of(path)
    path.with_suffix(".key").write_bytes(damage(card))
    protection = Protection(PASSPHRASE) if b"passphrase" in damage(card) else BY_ITSELF

    with pytest.raises(StoreKeyMissing, match=r"store.key is damaged") as damaged:
        await open_and_close(path, protection)

    assert str(card["key"])[2:-2] not in str(damaged.value)


async def test_a_key_in_the_key_ring_is_in_no_file(path: Path, ring: Ring) -> None:
    await open_and_close(path)
    await open_and_close(path)

    (key,) = ring.kept.values()
    assert card_of(path).keys() == {"version", "kept", "name"}
    assert len(bytes.fromhex(key)) == 32
    for form in (key.encode(), bytes.fromhex(key)):
        assert not any(form in file.read_bytes() for file in path.parent.iterdir())


async def test_a_key_ring_that_is_gone_locked_or_emptied_says_so(path: Path, ring: Ring) -> None:
    await open_and_close(path)

    ring.is_locked = True
    with pytest.raises(StoreKeyMissing, match="does not give the key: locked"):
        await open_and_close(path)
    ring.is_locked = False
    ring.kept.clear()
    with pytest.raises(StoreKeyMissing, match="no key of the name"):
        await open_and_close(path)
    keyring.set_keyring(NoRing())
    with pytest.raises(StoreKeyMissing, match="there is none here"):
        await open_and_close(path)


async def test_what_is_no_proper_key_ring_is_not_used(path: Path, ring: Ring) -> None:
    keyring.set_keyring(PlainFile())

    await open_and_close(path)

    assert card_of(path)["kept"] == "file"


@pytest.mark.parametrize("key_ring", [True, False])
async def test_a_key_goes_into_a_file_if_the_ring_is_locked_or_unwanted(
    path: Path, ring: Ring, key_ring: bool
) -> None:
    ring.is_locked = key_ring

    await open_and_close(path, Protection(key_ring=key_ring))

    assert card_of(path)["kept"] == "file"
    assert not ring.kept


async def test_no_log_no_name_and_no_error_shows_a_key_or_a_passphrase(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await open_and_close(path)
    key = store_key(path, BY_ITSELF, may_be_new=False)
    secret = str(card_of(path)["key"])
    path.write_bytes(b"x" * 4096)

    with pytest.raises(StoreKeyFailed) as failed:
        await open_and_close(path)

    shown = [repr(key), str(key), caplog.text, repr(failed.value), repr(failed.value.__cause__)]
    assert secret in key.for_driver()
    assert not any(secret in text for text in shown)
    assert PASSPHRASE not in repr(Protection(PASSPHRASE))
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        StoreKey(bytes(31), "")
