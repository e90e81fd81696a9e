"""The commands by which people talk, each in a process of its own, on a fake mesh."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.whimbrel_cli.terminal import SECONDS, Terminal
from tests.whimbrel_client.fake_gateway import FakeMesh, rejection, running_gateway
from tests.whimbrel_client.stored import looked_into


@pytest.fixture
def mesh() -> FakeMesh:
    return FakeMesh()


@pytest.fixture
async def terminal(tmp_path: Path, mesh: FakeMesh) -> AsyncIterator[Terminal]:
    async with running_gateway(mesh) as gateway:
        terminal = Terminal(tmp_path, gateway.address)
        for handle in ("alice", "bob"):
            assert (await terminal.run("register", handle)).code == 0
        yield terminal


async def test_a_book_on_standard_input_arrives_whole_and_in_order(terminal: Terminal) -> None:
    book = [f"line {number} ☕ " for number in range(5000)]
    book[7] = ""

    sent = await terminal.run(
        "send", "--as", "alice", "bob", "--json", typed="\n".join(book).encode()
    )
    heard = await terminal.run("listen", "--as", "bob", "--json", "--count", "5000")

    assert json.loads(sent.out)["accepted"] == 5000
    assert [json.loads(line)["text"] for line in heard.out.splitlines()] == book


async def test_listening_resumes_where_it_stopped(terminal: Terminal) -> None:
    await terminal.run("send", "--as", "alice", "bob", typed=b"one\ntwo\nthree\n")

    first = await terminal.run("listen", "--as", "bob", "--count", "2")
    second = await terminal.run("listen", "--as", "bob", "--count", "1")
    again = await terminal.run("listen", "--as", "bob", "--count", "1", "--after", "0")

    assert [line.split(": ")[1] for line in first.out.splitlines()] == ["one", "two"]
    assert second.out.endswith("three\n")
    assert again.out.endswith("one\n")


async def test_a_profile_is_for_its_owner_only(terminal: Terminal) -> None:
    profile = terminal.data / "profiles" / "alice"

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in profile.iterdir()}

    assert modes["store.key"] == modes["store.db"] == modes["account.json"] == 0o600
    assert stat.S_IMODE(profile.stat().st_mode) == 0o700


async def test_a_handle_of_someone_else_is_named_in_the_error(
    terminal: Terminal, tmp_path: Path
) -> None:
    with looked_into(tmp_path / "profiles" / "alice" / "store.db") as connection:
        connection.execute("DELETE FROM device_key")

    ended = await terminal.run("register", "alice")

    assert ended.code == 1
    assert "HANDLE_TAKEN" in ended.err


async def test_a_person_without_an_account_is_told_to_register(terminal: Terminal) -> None:
    ended = await terminal.run("send", "--as", "carol", "bob", "hi")

    assert ended.code == 1
    assert "register first" in ended.err


async def test_an_unknown_recipient_ends_with_an_error(terminal: Terminal) -> None:
    ended = await terminal.run("send", "--as", "alice", "nobody", "hi")

    assert ended.code == 1
    assert "HANDLE_UNKNOWN" in ended.err


async def test_a_refused_message_ends_with_an_error(terminal: Terminal, mesh: FakeMesh) -> None:
    mesh.judge = lambda send: rejection(send, "RECIPIENT_UNKNOWN")

    ended = await terminal.run("send", "--as", "alice", "bob", "hi")

    assert ended.code == 1
    assert "RECIPIENT_UNKNOWN" in ended.err


async def test_a_message_that_nobody_answers_stays_queued_for_the_next_command(
    terminal: Terminal, mesh: FakeMesh
) -> None:
    mesh.judge = lambda send: rejection(send, "SHARD_UNAVAILABLE", 0.05)

    ended = await terminal.run("send", "--as", "alice", "bob", "first", "--wait", "0.5")
    mesh.judge = lambda send: None
    await terminal.run("send", "--as", "alice", "bob", "second")
    heard = await terminal.run("listen", "--as", "bob", "--count", "2")

    assert ended.code == 3
    assert "stay queued" in ended.err
    assert [line.split(": ")[1] for line in heard.out.splitlines()] == ["first", "second"]


async def test_bytes_that_are_no_text_are_named_by_their_line(terminal: Terminal) -> None:
    ended = await terminal.run("send", "--as", "alice", "bob", typed=b"good\nb\xffd\n")

    assert ended.code == 1
    assert "line 2" in ended.err


async def test_what_someone_writes_cannot_move_the_cursor(terminal: Terminal) -> None:
    await terminal.run("send", "--as", "alice", "bob", "\x1b[2Jgone\nfake: line")

    heard = await terminal.run("listen", "--as", "bob", "--count", "1")

    assert "\x1b" not in heard.out
    assert heard.out.count("\n") == 1


async def test_two_people_chat_and_see_their_ticks(terminal: Terminal) -> None:
    alice = await terminal.start("chat", "--as", "alice", "bob")
    bob = await terminal.start("chat", "--as", "bob", "alice")
    assert alice.stdin
    assert alice.stdout
    assert bob.stdin
    assert bob.stdout

    async with asyncio.timeout(SECONDS):
        alice.stdin.write(b"hello bob\n")
        at_bob = await bob.stdout.readline()
        ticks = [await alice.stdout.readline()]
        while b"read" not in ticks[-1]:
            ticks.append(await alice.stdout.readline())
        bob.stdin.write(b"hello alice\n")
        at_alice = await alice.stdout.readline()
        alice.stdin.close()
        bob.stdin.close()
        codes = await asyncio.gather(alice.wait(), bob.wait())
        await asyncio.gather(alice.communicate(), bob.communicate())

    assert at_bob.decode() == "alice: hello bob\n"
    assert at_alice.decode() == "bob: hello alice\n"
    assert ticks[0].decode() == "✓ line 1\n"
    assert codes == [0, 0]


async def test_a_chat_waits_for_someone_who_has_not_registered_yet(terminal: Terminal) -> None:
    alice = await terminal.start("chat", "--as", "alice", "carol")
    assert alice.stdin
    assert alice.stdout

    async with asyncio.timeout(SECONDS):
        told = await alice.stdout.readline()
        await terminal.run("register", "carol")
        alice.stdin.write(b"welcome\n")
        tick = await alice.stdout.readline()
        await alice.communicate(b"")

    assert told.decode() == "waiting for carol …\n"
    assert tick.decode().startswith("✓")
