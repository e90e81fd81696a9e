"""A file that changes, a store that lies, a connection that breaks: never half a file."""

import asyncio
import os
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from tests.whimbrel_client.media.conftest import Calls, replace
from whimbrel.content.v1.content_pb2 import Media
from whimbrel_client import FileChanged, FileForged, FileTooLarge, TransferFailed
from whimbrel_client.media import sending
from whimbrel_client.media.pointers import pointer_of
from whimbrel_client.media.saving import save
from whimbrel_client.media.sending import PART_BYTES, Uploading


def nobody(_done: int, _total: int) -> None:
    return None


async def sent(uploading: Uploading, path: Path, name: str = "film.bin") -> Media:
    _, media_id, plan = await uploading.upload(path, nobody)
    return Media(pointer=pointer_of(media_id, plan), name=name, size=plan.key.length)


@pytest.mark.parametrize("name", ["../../outside", "/etc/x", "a\x1b[2J"])
async def test_a_file_appears_in_the_folder_whatever_it_is_called(
    uploading: Uploading, calls: Calls, path: Path, tmp_path: Path, name: str
) -> None:
    media = await sent(uploading, path, name)

    saved = await save(media, tmp_path / "in", calls=calls, on_progress=nobody)

    assert saved.parent == tmp_path / "in"
    assert saved.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:777] + bytes([body[777] ^ 1]) + body[778:],
        lambda body: bytes([body[0] ^ 128]) + body[1:],
        lambda body: body[:-1] + bytes([body[-1] ^ 1]),
        lambda body: body + b"more",
        lambda body: os.urandom(len(body)),
    ],
    ids=["a bit", "of the IV", "of the MAC", "longer", "another file"],
)
async def test_nothing_appears_of_a_file_that_was_changed(
    uploading: Uploading, calls: Calls, path: Path, tmp_path: Path, change
) -> None:
    media = await sent(uploading, path)
    await replace(calls, media, change)

    with pytest.raises(FileForged):
        await save(media, tmp_path / "in", calls=calls, on_progress=nobody)

    assert list((tmp_path / "in").iterdir()) == []


async def test_nothing_appears_of_a_file_that_was_cut(
    uploading: Uploading, calls: Calls, path: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("whimbrel_client.media.fetching._LONGEST_PAUSE", 0.0)
    media = await sent(uploading, path)
    await replace(calls, media, lambda body: body[:-40])

    with pytest.raises(TransferFailed, match=r"has given [\d,]+ of"):
        await save(media, tmp_path / "in", calls=calls, on_progress=nobody)

    assert list((tmp_path / "in").iterdir()) == []


async def test_a_message_that_tells_another_key_or_size_saves_nothing(
    uploading: Uploading, calls: Calls, path: Path, tmp_path: Path
) -> None:
    media = await sent(uploading, path)
    forged = [Media(), Media(), Media()]
    for one in forged:
        one.CopyFrom(media)
    forged[0].pointer.key = bytes(64)
    forged[1].pointer.digest = bytes(32)
    forged[2].size = 2**63

    for one in forged:
        with pytest.raises(FileForged):
            await save(one, tmp_path / "in", calls=calls, on_progress=nobody)

    assert not (tmp_path / "in").exists() or list((tmp_path / "in").iterdir()) == []


async def test_a_file_that_changes_while_it_is_sent_is_not_sent(
    uploading: Uploading, calls: Calls, path: Path
) -> None:
    def change(url: str) -> str:
        path.write_bytes(os.urandom(200_000))
        return url

    calls.twist = change

    with pytest.raises(FileChanged):
        await uploading.upload(path, nobody)


async def test_a_file_of_more_than_two_gib_is_refused(uploading: Uploading, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(sending.MOST_BYTES + 1)

    with pytest.raises(FileTooLarge):
        await uploading.upload(path, nobody)


async def test_an_upload_that_was_cut_off_is_resumed_with_the_same_key(
    uploading: Uploading, calls: Calls, path: Path, tmp_path: Path
) -> None:
    path.write_bytes(os.urandom(3 * PART_BYTES))
    total = 0

    def cut(done: int, total_: int) -> None:
        nonlocal total
        total = total_
        if done > total_ * 0.85:
            task.cancel()

    task = asyncio.create_task(uploading.upload(path, cut))
    with pytest.raises(asyncio.CancelledError):
        await task
    media = await sent(uploading, path)
    saved = await save(media, tmp_path / "in", calls=calls, on_progress=nobody)

    assert calls.asked[0] > calls.asked[1] > 0
    assert saved.read_bytes() == path.read_bytes()
    assert len(await calls.service.rows("SELECT FROM media")) == 1
    assert total > 6 * PART_BYTES


async def test_an_upload_of_yesterday_begins_anew(
    uploading: Uploading, calls: Calls, path: Path, tmp_path: Path
) -> None:
    first = await sent(uploading, path)
    await calls.service.clock.advance(86_400 - 60)

    media = await sent(uploading, path)

    assert media.pointer.media_id != first.pointer.media_id
    assert media.pointer.key != first.pointer.key


async def test_what_a_broken_connection_left_is_fetched_by_range(
    uploading: Uploading, calls: Calls, path: Path, tmp_path: Path
) -> None:
    media = await sent(uploading, path)
    async with Breaking(calls.service.settings.s3_endpoint, after=60_000) as breaking:
        calls.twist = breaking.instead
        saved = await save(media, tmp_path / "in", calls=calls, on_progress=nobody)

    assert saved.read_bytes() == path.read_bytes()
    assert breaking.connections >= 4


async def test_an_upload_over_broken_connections_gets_there(
    uploading: Uploading, calls: Calls, path: Path, tmp_path: Path
) -> None:
    async with Breaking(calls.service.settings.s3_endpoint, after=60_000, times=2) as breaking:
        calls.twist = breaking.instead
        media = await sent(uploading, path)
        calls.twist = None

    saved = await save(media, tmp_path / "in", calls=calls, on_progress=nobody)

    assert saved.read_bytes() == path.read_bytes()
    assert breaking.connections == 3


class Breaking:
    """Between the SDK and the store: cuts each connection after so many bytes, either way."""

    def __init__(self, store: str, *, after: int, times: int = 1000) -> None:
        split = urlsplit(store)
        self._store = split.netloc
        self._host, self._port = split.hostname, split.port
        self._after = after
        self._times = times
        self._own = ""
        self.connections = 0

    def instead(self, url: str) -> str:
        return url.replace(self._store, self._own)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._own = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        left = self._after if self.connections <= self._times else 1 << 40
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        # The host is signed, so the store must see its own.
        head = (await reader.readuntil(b"\r\n\r\n")).replace(
            self._own.encode(), self._store.encode()
        )
        up_writer.write(head)
        ways = (self._pass(reader, up_writer, left), self._pass(up_reader, writer, left))
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for one in (writer, up_writer):
            one.close()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        while left > 0 and (some := await reader.read(min(left, 16_384))):
            left -= len(some)
            writer.write(some)
            await writer.drain()
