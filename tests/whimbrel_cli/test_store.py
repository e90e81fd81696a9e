"""The passphrase of a store, as a person changes it."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from whimbrel_cli.main import app
from whimbrel_client import Protection, StoreKeyFailed
from whimbrel_client.profile import Account, Profile
from whimbrel_client.store import Store

IN_FILE = Protection(key_ring=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where alice's profile is, with a store that has no passphrase."""
    profile = Profile(tmp_path / "profiles" / "alice")
    profile.keep(Account("alice", b"a" * 16, 1, ("localhost:1",)))
    assert opens(tmp_path, IN_FILE)
    return tmp_path


def opens(data: Path, protection: Protection) -> bool:
    async def open_it() -> None:
        store = Store(data / "profiles" / "alice" / "store.db", protection)
        await store.open()
        await store.close()

    try:
        asyncio.run(open_it())
    except StoreKeyFailed:
        return False
    return True


def change(data: Path, *words: str, typed: str = "", now: str = "") -> tuple[int, str]:
    """Run the command with the present passphrase in the environment."""
    ended = CliRunner().invoke(
        app,
        ["store", "passphrase", "--as", "alice", "--data", str(data), *words],
        input=typed,
        env={"WHIMBREL_PASSPHRASE": now},
    )
    return ended.exit_code, ended.output


def test_a_passphrase_is_given_changed_and_taken_away(data: Path) -> None:
    given, said = change(data, typed="one\none\n")
    assert (given, "has a new passphrase" in said, "one" in said) == (0, True, False)
    assert opens(data, Protection("one"))

    assert change(data, typed="two\ntwo\n", now="one")[0] == 0
    assert opens(data, Protection("two"))

    assert change(data, "--none", now="two")[0] == 0
    assert opens(data, IN_FILE)


def test_a_wrong_passphrase_or_one_that_is_mistyped_changes_nothing(data: Path) -> None:
    assert change(data, typed="one\none\n")[0] == 0

    wrong, said = change(data, typed="two\ntwo\n", now="another")
    mistyped, _ = change(data, typed="two\ntwice\n", now="one")

    assert (wrong, "not opened by this passphrase" in said) == (1, True)
    assert mistyped == 1
    assert opens(data, Protection("one"))
