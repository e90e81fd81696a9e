"""The wire proof: the SDK and the real libsignal understand each other through a mesh that dies.

One side is Python, the other libsignal 0.103.0 in the example client. Nothing is lost, doubled, out
of order or unreadable, while the message service is killed twice.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.meshes import own_mesh
from tests.examples.node_client import NodeClient
from tests.faults.breaking import kill, start_attached
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client, Message

A_TENTH = 50  # messages in each direction


@asynccontextmanager
async def _person(mesh: Mesh, profile: Path, handle: str) -> AsyncIterator[Client]:
    await Client.register(profile, handle, gateways=mesh.gateway_addresses)
    async with Client.connect(profile) as client:
        yield client


async def _received(client: Client, count: int, within: float) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(within):
        async for message in client.messages():
            messages.append(message)
            if len(messages) == count:
                break
    return messages


async def _say(python: Client, node: NodeClient, ours: list[str], theirs: list[str]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        await python.send(node.handle, our)
        await node.send(python.handle, their)


async def _talk(tmp_path: Path, each: int, *, within: float) -> None:
    ours, theirs = ([f"{side} {number}" for number in range(each)] for side in ("ours", "theirs"))
    third, rest = each // 3, 2 * each // 3
    async with (
        own_mesh() as mesh,
        _person(mesh, tmp_path / "python", "python") as python,
        NodeClient("libsignal", tmp_path / "node", mesh.gateway_addresses) as node,
        asyncio.TaskGroup() as tasks,
    ):
        arriving = tasks.create_task(_received(python, each, within))
        await _say(python, node, ours[:third], theirs[:third])
        await node.received(1)
        await kill(mesh, "message-1")
        await _say(python, node, ours[third:rest], theirs[third:rest])
        await start_attached(mesh, "message-1")
        await node.received(third + 1)
        await kill(mesh, "message-2")
        await _say(python, node, ours[rest:], theirs[rest:])
        await start_attached(mesh, "message-2")

        await node.received(each, within)
        await node.accepted(each, within)
        arrived = await arriving

    assert node.texts == ours
    assert [message.text for message in arrived] == theirs


@pytest.mark.timeout(240)
async def test_python_and_libsignal_talk_while_the_message_service_is_killed_twice(
    tmp_path: Path,
) -> None:
    await _talk(tmp_path, A_TENTH, within=120)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_thousand_messages_pass_between_python_and_libsignal(tmp_path: Path) -> None:
    await _talk(tmp_path, 10 * A_TENTH, within=600)
