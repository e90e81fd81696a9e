"""The SDK on the real mesh: what its own tests show on a fake one holds here too."""

import asyncio
import os
import secrets
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.whimbrel_client.test_talking import received
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import (
    BodyTooLarge,
    CallFailed,
    Client,
    HandleTaken,
    HandleUnknown,
    Profile,
    SendRefused,
    Tick,
)
from whimbrel_client.clock import ServerClock
from whimbrel_client.device_keys import new_keys, published
from whimbrel_client.identity import IdentityCalls
from whimbrel_client.kept import queued_of
from whimbrel_client.payload import MAX_CONTENT_BYTES, text
from whimbrel_client.registering import Applicant, register

COUNT = 300


class People:
    """Registers people under handles that nobody else has."""

    def __init__(self, folder: Path, mesh: Mesh) -> None:
        self._folder = folder
        self._gateways = mesh.gateway_addresses

    async def register(self) -> tuple[Path, str]:
        handle = f"p{secrets.token_hex(8)}"
        await Client.register(self._folder / handle, handle, gateways=self._gateways)
        return self._folder / handle, handle


@pytest.fixture
def people(tmp_path: Path, mesh: Mesh) -> People:
    return People(tmp_path, mesh)


async def test_two_people_talk_and_both_see_blue_ticks(people: People) -> None:
    (one, alice), (other, bob) = await people.register(), await people.register()
    lines = [f"line {number}" for number in range(COUNT)]

    async with Client.connect(one) as left, Client.connect(other) as right:
        sent = await left.send_all(bob, lines)
        answers = await right.send_all(alice, lines)
        at_right, at_left = await asyncio.gather(received(right, COUNT), received(left, COUNT))
        await left.mark_read(right.user_id, at_left[-1].seq)
        await right.mark_read(left.user_id, at_right[-1].seq)
        ticks = [await read(left, sent[-1]), await read(right, answers[-1])]

    assert [message.text for message in at_right] == lines
    assert [message.text for message in at_left] == lines
    assert ticks == [Tick.READ, Tick.READ]


async def read(client: Client, message: object) -> Tick:
    """The tick of the message once it is blue."""
    async with asyncio.timeout(30):
        async for _ in client.receipts():
            tick = await client.tick(message)  # type: ignore[arg-type]
            if tick is Tick.READ:
                return tick
    raise AssertionError("the receipts have ended")


async def test_the_same_key_finds_its_account_and_another_key_does_not(
    people: People, mesh: Mesh, tmp_path: Path
) -> None:
    folder, handle = await people.register()
    gateways = mesh.gateway_addresses

    again = await Client.register(folder, handle, gateways=gateways)
    with pytest.raises(HandleTaken):
        await Client.register(tmp_path / "thief", handle, gateways=gateways)

    assert again == Profile(folder).account()


async def test_a_handle_that_nobody_has_is_unknown_and_a_bad_one_invalid(
    people: People, mesh: Mesh, tmp_path: Path
) -> None:
    folder, _ = await people.register()

    async with Client.connect(folder) as client:
        with pytest.raises(HandleUnknown):
            await client.send("nobody.at.all", "hello")
    with pytest.raises(CallFailed, match="HANDLE_INVALID"):
        await Client.register(tmp_path / "bad", "No!", gateways=mesh.gateway_addresses)


async def test_a_message_to_an_account_that_does_not_exist_is_refused(people: People) -> None:
    folder, _ = await people.register()

    async with Client.connect(folder) as client:
        message = await client.send(os.urandom(16), "hello?")
        with pytest.raises(SendRefused, match="RECIPIENT_UNKNOWN"):
            await client.accepted(message)


async def test_the_largest_message_arrives_whole_and_a_larger_one_is_not_queued(
    people: People,
) -> None:
    (one, _), (other, bob) = await people.register(), await people.register()
    spare = len(queued_of(b"b" * 16, text("x" * MAX_CONTENT_BYTES)).content) - MAX_CONTENT_BYTES
    largest = "x" * (MAX_CONTENT_BYTES - spare)

    async with Client.connect(one) as sender, Client.connect(other) as receiver:
        await sender.send_all(bob, [largest] * 10)
        with pytest.raises(BodyTooLarge):
            await sender.send(bob, largest + "x")
        messages = await received(receiver, 10)

    assert [message.text == largest for message in messages] == [True] * 10


async def test_a_device_whose_date_is_wrong_learns_the_time_and_registers(
    mesh: Mesh, tmp_path: Path
) -> None:
    clock = ServerClock(wall=lambda: time.time() - 400 * 86400)
    calls = IdentityCalls(mesh.gateway_addresses, clock=clock)

    handle, keys = f"p{secrets.token_hex(8)}", published(new_keys())
    account, _ = await register(calls, Applicant(handle), Ed25519PrivateKey.generate(), keys)

    assert len(account.user_id) == 16
    assert abs(clock.now_ms() / 1000 - time.time()) < 30


async def test_a_receiver_that_is_killed_while_it_stores_has_each_effect_exactly_once(
    people: People, mesh: Mesh, tmp_path: Path
) -> None:
    (one, _), (other, bob) = await people.register(), await people.register()
    effects = tmp_path / "effects.db"
    async with Client.connect(one) as sender:
        for message in await sender.send_all(bob, map(str, range(COUNT))):
            await sender.accepted(message)

    job = ("receive", str(effects), str(COUNT))
    codes = [await run_mortal(other, mesh, point, *job) for point in ("before-ack", "none")]

    assert codes == [-signal.SIGKILL, 0]
    assert effects_in(effects) == [str(number) for number in range(COUNT)]


async def test_a_sender_that_is_killed_before_the_answer_sends_each_message_exactly_once(
    people: People, mesh: Mesh
) -> None:
    (one, _), (other, bob) = await people.register(), await people.register()

    job = ("send", bob, "50")
    codes = [await run_mortal(one, mesh, point, *job) for point in ("before-store", "none")]
    async with Client.connect(other) as receiver:
        messages = await received(receiver, 50)

    assert codes == [-signal.SIGKILL, 0]
    assert [message.text for message in messages] == [str(number) for number in range(50)]
    assert [message.seq for message in messages] == list(range(1, 51))


async def run_mortal(profile: Path, mesh: Mesh, point: str, *job: str) -> int:
    """Run the program that dies at the point; returns its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.whimbrel_client.mortal"),
        *(str(profile), mesh.gateway_addresses[1], point, *job),
        env={**os.environ, "PYTHONPATH": f".{os.pathsep}gen", "GRPC_ENABLE_FORK_SUPPORT": "0"},
        cwd=Path(__file__).parents[2],
    )
    async with asyncio.timeout(60):
        return await process.wait()


def effects_in(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT text FROM effect ORDER BY rowid").fetchall()
    connection.close()
    return [row[0] for row in rows]
