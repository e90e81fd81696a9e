"""The SDK is killed at the worst moments; nothing is lost, nothing is doubled."""

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.whimbrel_client.conftest import People
from tests.whimbrel_client.fake_gateway import FakeGateway, FakeMesh
from tests.whimbrel_client.test_talking import received
from whimbrel_client import Client

COUNT = 120


async def start(
    profile: Path, gateway: FakeGateway, point: str, *job: str
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.whimbrel_client.mortal"),
        *(str(profile), gateway.address, point, *job),
        env={**os.environ, "PYTHONPATH": f".{os.pathsep}gen", "GRPC_ENABLE_FORK_SUPPORT": "0"},
        cwd=Path(__file__).parents[2],
    )


async def end_of(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(40):
        return await process.wait()


async def queue_for_bob(alice: Path, count: int) -> None:
    async with Client.connect(alice) as sender:
        for message in await sender.send_all("bob", [f"{number}" for number in range(count)]):
            await sender.accepted(message)


def effects_in(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT text FROM effect ORDER BY rowid").fetchall()
    connection.close()
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    "point", ["before-store", "while-storing", "stored", "before-ack", "after-ack-is-due"]
)
async def test_a_receiver_that_dies_has_each_effect_exactly_once(
    people: People, mesh: FakeMesh, gateway: FakeGateway, tmp_path: Path, point: str
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    mesh.limits.max_unacked = 10
    await queue_for_bob(alice, COUNT)
    job = ("receive", str(tmp_path / "effects.db"), str(COUNT))

    died = await end_of(await start(bob, gateway, point, *job))
    died_again = await end_of(await start(bob, gateway, point, *job))
    ended = await end_of(await start(bob, gateway, "none", *job))

    assert (died, died_again, ended) == (-signal.SIGKILL, -signal.SIGKILL, 0)
    assert effects_in(tmp_path / "effects.db") == [f"{number}" for number in range(COUNT)]
    assert mesh.handles["bob"].queue == []


@pytest.mark.parametrize(
    "point",
    [
        "queued",
        "before-seal",
        "sealed",
        "before-first-try-is-kept",
        "first-try-kept",
        "before-write",
        "written",
        "before-store",
        "stored",
        "before-ack",
    ],
)
async def test_a_sender_that_dies_sends_each_message_exactly_once(
    people: People, mesh: FakeMesh, gateway: FakeGateway, point: str
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    job = ("send", "bob", str(COUNT))

    died = await end_of(await start(alice, gateway, point, *job))
    ended = await end_of(await start(alice, gateway, "none", *job))
    async with Client.connect(bob) as receiver:
        messages = await received(receiver, COUNT)

    assert (died, ended) == (-signal.SIGKILL, 0)
    assert [message.text for message in messages] == [f"{number}" for number in range(COUNT)]
    (conversation,) = mesh.conversations.values()
    assert conversation.last_seq == COUNT
    assert_repeats_are_the_same(mesh)


def assert_repeats_are_the_same(mesh: FakeMesh) -> None:
    """A try repeats the bytes and the time of the first; only what it follows may have changed."""
    first: dict[bytes, bytes] = {}
    for _, send in mesh.sends:
        content = type(send)()
        content.CopyFrom(send)
        content.after = b""
        content_bytes = content.SerializeToString(deterministic=True)
        assert first.setdefault(send.client_message_id, content_bytes) == content_bytes


async def test_a_receiver_killed_at_random_has_each_effect_exactly_once(
    people: People, mesh: FakeMesh, gateway: FakeGateway, tmp_path: Path
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    job = ("receive", str(tmp_path / "effects.db"), "1200")
    await queue_for_bob(alice, 1200)
    account = mesh.handles["bob"]

    for kill_at in (1, 300, 600, 900):
        process = await start(bob, gateway, "none", *job)
        async with asyncio.timeout(40):
            while account.acked_pos < kill_at and process.returncode is None:
                await asyncio.sleep(0.001)  # the fake mesh tells nobody of an ack
        process.send_signal(signal.SIGKILL)
        assert await end_of(process) == -signal.SIGKILL
    ended = await end_of(await start(bob, gateway, "none", *job))

    assert ended == 0
    assert effects_in(tmp_path / "effects.db") == [f"{number}" for number in range(1200)]
