"""A client that shares no line with the SDK, and has the real libsignal, talks through a mesh."""

import secrets
import subprocess
from pathlib import Path

import pytest

from tests.e2e.test_sdk import read
from tests.examples.conftest import Foreigners
from tests.faults.breaking import died, dying_at
from tests.whimbrel_client.crypto.libsignal import install
from tests.whimbrel_client.test_talking import received
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client, Tick

pytestmark = pytest.mark.timeout(180)

_TAMPER = Path(__file__).parent / "tamper.mjs"


def tamper(profile: Path, how: str) -> None:
    """Change what a client has kept, while it does not run."""
    module = install.example() / "store.js"
    command = [install.node(), str(_TAMPER), str(module), str(profile / "store"), how]
    subprocess.run(command, check=True)


async def test_two_foreign_clients_talk(foreigners: Foreigners) -> None:
    async with foreigners.client() as one, foreigners.client() as other:
        await one.send(other.handle, "hello", "and more")
        await other.received(2)
        await other.send(one.handle, "hello to you")
        await one.received(1)

        await one.receipt_covering(2)

        assert other.texts == ["hello", "and more"]
        assert one.texts == ["hello to you"]


async def test_a_reading_reaches_the_sender(foreigners: Foreigners) -> None:
    async with foreigners.client() as one, foreigners.client() as other:
        await one.send(other.handle, "read me")
        await other.received(1)

        await other.read(one.user_id, 1)

        await one.receipt_covering(1, is_read=True)


async def test_a_foreign_client_that_was_away_catches_up_in_order(foreigners: Foreigners) -> None:
    async with foreigners.client() as one:
        async with foreigners.client() as other:
            await other.online()
        texts = [f"{number}" for number in range(50)]
        await one.send(other.handle, *texts)
        await one.accepted(50)

        async with foreigners.client(other.handle) as again:
            assert await again.received(50) == texts


async def test_a_foreign_client_that_is_killed_loses_and_doubles_nothing(
    foreigners: Foreigners,
) -> None:
    texts = [f"{number}" for number in range(60)]
    async with foreigners.client() as one:
        async with foreigners.client() as other:
            await one.send(other.handle, *texts)
            await other.received(5)
            await other.kill()
        cursors = [message["cursor"] for message in other.all("message")]

        # What it showed, it had kept: it shows the rest.
        async with foreigners.client(other.handle, after=cursors[-1]) as again:
            await again.received(60 - len(cursors))
            await again.send(one.handle, "all here")
            await one.received(1)

    assert other.texts + again.texts == texts
    assert one.texts == ["all here"]


@pytest.mark.parametrize("point", ["send.before_forward", "accepted.before_device"])
async def test_a_gateway_that_dies_in_the_middle_of_sends_loses_and_doubles_nothing(
    foreigners: Foreigners, mesh: Mesh, point: str
) -> None:
    texts = [f"{number}" for number in range(40)]
    dying, other_gateway = mesh.gateway_addresses
    async with (
        foreigners.client(gateways=[other_gateway]) as other,
        foreigners.client(gateways=[dying]) as one,
    ):
        async with dying_at(mesh, "gateway-1", point, count=10):
            await one.send(other.handle, *texts)
            await died(mesh, "gateway-1")
            answered = len(one.all("accepted"))
        await one.accepted(len(texts))
        await other.received(len(texts))

    # The others were under way, some of them accepted already.
    assert answered < 10
    assert other.texts == texts
    # A repeat has the place of the first try, even if its reader would not show it twice.
    assert [accepted["seq"] for accepted in one.all("accepted")] == list(range(1, 41))


async def test_a_foreign_client_and_the_sdk_talk_and_see_each_others_ticks(
    foreigners: Foreigners, tmp_path: Path, mesh: Mesh
) -> None:
    handle = f"p{secrets.token_hex(8)}"
    await Client.register(tmp_path / handle, handle, gateways=mesh.gateway_addresses)
    async with foreigners.client() as node, Client.connect(tmp_path / handle) as python:
        await node.send(handle, "from libsignal")
        [heard] = await received(python, 1)
        sent = await python.send(node.handle, "from Python")
        await node.received(1)

        await python.mark_read(node.user_id, heard.seq)
        await node.read(python.user_id, (await python.accepted(sent)).seq)

        await node.receipt_covering(heard.seq, is_read=True)
        assert await read(python, sent) is Tick.READ
        assert heard.text == "from libsignal"
        assert node.texts == ["from Python"]


async def test_a_foreign_client_repairs_a_send_to_a_device_that_was_registered_anew(
    foreigners: Foreigners, tmp_path: Path
) -> None:
    async with foreigners.client() as one:
        async with foreigners.client() as other:
            await one.send(other.handle, "before")
            await other.received(1)
        tamper(tmp_path / other.handle, "reinstall")

        # The same device key, and another registration: what `one` knows of it is stale now.
        async with foreigners.client(other.handle) as again:
            await one.send(other.handle, "after", "and more")
            texts = await again.received(2)
            await again.send(one.handle, "and back")
            await one.received(1)

    assert texts == ["after", "and more"]
    assert one.texts == ["and back"]
    assert one.all("identity") == [{"event": "identity", "user": other.user_id.hex()}]


async def test_a_message_that_cannot_be_read_is_asked_for_again(
    foreigners: Foreigners, tmp_path: Path
) -> None:
    async with foreigners.client() as one:
        async with foreigners.client() as other:
            await one.send(other.handle, "first")
            await other.received(1)
            await other.send(one.handle, "now we have a session")
            await one.received(1)
        tamper(tmp_path / other.handle, "lose-sessions")
        await one.send(other.handle, "lost", "and found")
        await one.accepted(3)

        async with foreigners.client(other.handle, after=1) as again:
            texts = await again.received(4)

    assert texts == [None, None, "lost", "and found"]
