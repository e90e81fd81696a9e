"""Files through the whole mesh: sealed, brought, told of, fetched, checked."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from PIL import Image
from pydantic import SecretStr

from mesh.ids import parse_ulid
from tests.e2e.meshes import lasting_mesh
from tests.faults.town import eventually
from tests.whimbrel_cli.terminal import Terminal
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.settings import StackSettings
from whimbrel_client import Client, Message, OutgoingMessage

Pair = tuple[Client, Client]


@pytest.fixture(scope="module")
def mesh(s3_url: str) -> Iterator[Mesh]:
    """The smallest mesh with files; they lie in the run's object store."""
    settings = StackSettings.model_construct(s3_url=SecretStr(s3_url))
    with lasting_mesh(gateways=1, message=1, shards=1, media=1, settings=settings) as mesh:
        yield mesh


@pytest.fixture
async def pair(mesh: Mesh, tmp_path: Path) -> AsyncIterator[Pair]:
    names = [f"{name}{os.urandom(6).hex()}" for name in ("ann", "bob")]
    for name in names:
        await Client.register(tmp_path / name, name, gateways=mesh.gateway_addresses)
    ann, bob = (Client.connect(tmp_path / name) for name in names)
    async with ann as one, bob as other:
        yield one, other


async def arrived(client: Client) -> Message:
    async for message in client.messages():
        return message
    raise AssertionError("nothing arrived")


async def delivered(one: Client, other: Client, path: Path, **more: str) -> Message:
    message: OutgoingMessage = await one.files.send(other.handle, path, **more)
    async with asyncio.timeout(20):
        await one.accepted(message)
        return await arrived(other)


@pytest.mark.parametrize("size", [0, 1, 300_000, 16 * 1024 * 1024 + 5])
async def test_a_file_arrives_intact(pair: Pair, tmp_path: Path, size: int) -> None:
    ann, bob = pair
    path = tmp_path / "report.bin"
    path.write_bytes(os.urandom(size))
    told: list[tuple[int, int]] = []

    message = await delivered(ann, bob, path, caption="read this")
    saved = await bob.files.save(
        message, tmp_path / "saved", on_progress=lambda done, total: told.append((done, total))
    )

    assert saved == tmp_path / "saved" / "report.bin"
    assert saved.read_bytes() == path.read_bytes()
    pieces = bob.files.read(message, size // 2, 1_000)
    assert b"".join([piece async for piece in pieces]) == path.read_bytes()[size // 2 :][:1_000]
    assert message.content is not None
    assert message.content.media.caption == "read this"
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert list(saved.parent.iterdir()) == [saved]


async def test_an_image_takes_a_small_picture_along(pair: Pair, tmp_path: Path) -> None:
    ann, bob = pair
    path = tmp_path / "shore.png"
    Image.effect_noise((800, 500), 90).save(path)

    message = await delivered(ann, bob, path)

    assert message.content is not None
    media = message.content.media
    assert (media.mime_type, media.width, media.height) == ("image/png", 800, 500)
    assert 0 < len(media.thumbnail) <= 8 * 1024


async def test_what_a_message_refers_to_is_kept_also_when_the_media_service_was_away(
    pair: Pair, mesh: Mesh, tmp_path: Path
) -> None:
    ann, bob = pair
    path = tmp_path / "kept.txt"
    path.write_text("kept")
    message = await ann.files.send(bob.handle, path)
    mesh.kill("media-1")
    await mesh.ended("media-1")

    async with asyncio.timeout(20):
        await ann.accepted(message)
        await mesh.start("media-1")

    async def is_kept() -> bool:  # once the message service has found the other again
        return await _days_left(mesh, message) >= 29

    await eventually(is_kept, within=20)
    assert await _rows(mesh.shards["shard-0"], "SELECT FROM media_reference") == []


async def test_no_log_tells_a_file_its_key_or_where_it_lies(
    pair: Pair, mesh: Mesh, tmp_path: Path
) -> None:
    ann, bob = pair
    path = tmp_path / "canary-name.txt"
    path.write_text("canary-content")

    message = await delivered(ann, bob, path, caption="canary-caption")
    await bob.files.save(message, tmp_path / "saved")

    assert message.content is not None
    pointer = message.content.media.pointer
    secrets = [b"canary-", b"X-Amz-Signature", pointer.media_id.encode()]
    for secret in (pointer.key, pointer.digest):
        secrets += [secret, secret.hex().encode(), base64.b64encode(secret)]
    logs = {one.name: one.read_bytes() for one in (mesh.data / "logs").iterdir()}
    assert {n for n, log in logs.items() if any(one in log for one in secrets)} == set()
    assert {"media-1.log", "gateway-1.log", "message-1.log"} <= logs.keys()


async def test_files_at_the_terminal(mesh: Mesh, tmp_path: Path) -> None:
    terminal, path = Terminal(tmp_path, mesh.gateway_addresses[0]), tmp_path / "notes.txt"
    path.write_text("what was said")
    ann, bob = (f"{name}{os.urandom(6).hex()}" for name in ("ann", "bob"))
    for name in (ann, bob):
        profile = tmp_path / "profiles" / name
        await Client.register(profile, name, gateways=mesh.gateway_addresses)

    sent = await terminal.run("send", "--as", ann, bob, "the notes", "--file", str(path))
    missing = await terminal.run("send", "--as", ann, bob, "--file", str(tmp_path / "none"))
    folder = tmp_path / "saved"
    heard = await terminal.run("listen", "--as", bob, "--count", "1", "--save", str(folder))

    assert (sent.code, sent.err) == (0, "")
    assert (missing.code, "cannot read" in missing.err) == (1, True)
    assert (folder / "notes.txt").read_text() == "what was said"
    assert f"document: notes.txt, 13 bytes, the notes) [saved as {folder}/notes.txt]" in heard.out


async def _days_left(mesh: Mesh, message: OutgoingMessage) -> float:
    assert message.content is not None
    media_id = parse_ulid(message.content.media.pointer.media_id)
    [row] = await _rows(
        mesh.media_database,
        "SELECT extract(epoch FROM expires_at - now()) / 86400 AS days FROM media"
        " WHERE media_id = $1",
        media_id,
    )
    return float(row["days"])


async def _rows(dsn: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()
