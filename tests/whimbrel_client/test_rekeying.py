"""A store gets another key: it is opened by that one from then on, also after a crash."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.whimbrel_client.test_store_key import Ring, ring
from whimbrel_client import (
    ProfileInUse,
    Protection,
    StoreKeyFailed,
    StoreKeyMissing,
    StoreKeyWrong,
    store_key,
)
from whimbrel_client.rekeying import change_key
from whimbrel_client.store import Store

__all__ = ["ring"]

OLD, NEW = Protection("old passphrase"), Protection("new passphrase")
IN_FILE, IN_RING = Protection(key_ring=False), Protection()
BOB = b"b" * 16


def make_cheap() -> None:
    """Let passphrases cost little: nobody guesses them here."""
    store_key._COST["memory_kib"] = 64


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_key, "_COST", dict(store_key._COST))
    make_cheap()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def make(path: Path, protection: Protection) -> None:
    """A store with something in it."""
    store = Store(path, protection)
    await store.open()
    await store.remember(BOB, "bob")
    await store.close()


async def opens(path: Path, protection: Protection) -> bool:
    """Whether it is opened so, with all that was in it."""
    store = Store(path, protection)
    try:
        await store.open()
    except StoreKeyFailed:
        return False
    kept = await store.user_named("bob")
    await store.close()
    return kept == BOB


@pytest.mark.parametrize(
    ("now", "then"), [(OLD, NEW), (IN_FILE, NEW), (OLD, IN_FILE), (IN_FILE, IN_RING)]
)
async def test_the_new_key_opens_the_store_and_the_old_one_does_not(
    path: Path, ring: Ring, now: Protection, then: Protection
) -> None:
    await make(path, now)
    before = (path.parent / "store.key").read_bytes()

    change_key(path, now, then)

    assert await opens(path, then)
    if now.passphrase:
        assert not await opens(path, now)
    card = path.parent / "store.key"
    assert "next" not in json.loads(card.read_bytes())
    card.write_bytes(before)
    assert not await opens(path, now)


async def test_a_key_that_opens_nothing_any_more_leaves_the_key_ring(
    path: Path, ring: Ring
) -> None:
    await make(path, IN_RING)
    assert ring.kept

    change_key(path, IN_RING, NEW)

    assert not ring.kept
    assert await opens(path, NEW)


@pytest.mark.parametrize(("wrong", "error"), [(NEW, StoreKeyWrong), (IN_FILE, StoreKeyMissing)])
async def test_a_wrong_passphrase_changes_nothing(
    path: Path, wrong: Protection, error: type[StoreKeyFailed]
) -> None:
    await make(path, OLD)
    before = {one.name: one.read_bytes() for one in path.parent.iterdir()}

    with pytest.raises(error):
        change_key(path, wrong, IN_FILE)

    assert {one.name: one.read_bytes() for one in path.parent.iterdir()} == before
    assert await opens(path, OLD)


async def test_a_store_that_is_open_is_left_alone(path: Path) -> None:
    store = Store(path, OLD)
    await store.open()

    with pytest.raises(ProfileInUse):
        change_key(path, OLD, NEW)
    await store.close()

    assert not await opens(path, NEW)


_DIE = """
import os, signal, sys
from pathlib import Path
from tests.whimbrel_client.test_rekeying import NEW, OLD, make_cheap
from whimbrel_client import rekeying, rewriting

make_cheap()

where, point = sys.argv[2:]
module, name = {"store": (rewriting, "replace"), "card": (rekeying, "write_card")}[where]
original, passed = getattr(module, name), []

def mortal(*args):
    passed.append(args)
    last = len(passed) == (2 if where == "card" else 1)
    if last and point == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    original(*args)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)

setattr(module, name, mortal)
rekeying.change_key(Path(sys.argv[1]), OLD, NEW)
"""


@pytest.mark.parametrize(
    ("where", "point", "opener"),
    [("store", "before", OLD), ("store", "after", NEW), ("card", "before", NEW)],
)
async def test_a_kill_in_between_leaves_a_store_that_one_of_both_opens(
    path: Path, where: str, point: str, opener: Protection
) -> None:
    await make(path, OLD)
    other = NEW if opener is OLD else OLD

    died = subprocess.run(
        [sys.executable, "-c", _DIE, path, where, point],
        env={**os.environ, "PYTHONPATH": f".{os.pathsep}gen"},
        cwd=Path(__file__).parents[2],
        check=False,
    )

    assert died.returncode == -signal.SIGKILL
    assert "next" in json.loads((path.parent / "store.key").read_bytes())
    assert not await opens(path, other)
    assert await opens(path, opener)
    assert "next" not in json.loads((path.parent / "store.key").read_bytes())
    assert not await opens(path, other)
    change_key(path, opener, IN_FILE)
    assert await opens(path, IN_FILE)
