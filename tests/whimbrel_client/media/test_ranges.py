"""The middle of a file: what comes is what was sent, and what was changed does not come."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.whimbrel_client.media.conftest import Calls, replace
from whimbrel.content.v1.content_pb2 import Media
from whimbrel_client import FileForged, RangeUnproved
from whimbrel_client.media import ranges
from whimbrel_client.media.pointers import pointer_of
from whimbrel_client.media.sending import Uploading

CHUNK = 256 * 1024
SIZE = 5 * CHUNK + 777


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
async def film(uploading: Uploading, path: Path) -> Media:
    _, media_id, plan = await uploading.upload(path, lambda _done, _total: None)
    return Media(pointer=pointer_of(media_id, plan), name=path.name, size=plan.key.length)


async def read(calls: Calls, media: Media, start: int, length: int | None = None) -> bytes:
    pieces = ranges.read(media, start, length, calls=calls)
    return b"".join([piece async for piece in pieces])


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda body: body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, 1),
        (0, None),
        (7, 100_000),
        (CHUNK - 1, 2),
        (CHUNK, CHUNK),
        (CHUNK + 15, 3 * CHUNK),
        (SIZE - 1, None),
        (SIZE - 10, 10_000),
        (SIZE, None),
        (SIZE + 5, 5),
        (9, 0),
    ],
)
async def test_any_range_is_that_of_the_file(
    calls: Calls, film: Media, path: Path, start: int, length: int | None
) -> None:
    end = None if length is None else start + length

    assert await read(calls, film, start, length) == path.read_bytes()[start:end]


async def test_a_range_fetches_no_more_than_its_chunks(calls: Calls, film: Media) -> None:
    given: list[int] = []

    async def told(response) -> None:
        given.append(int(response.headers["content-length"]))

    with pytest.MonkeyPatch.context() as patch:
        listening(patch, told)
        await read(calls, film, 2 * CHUNK + 1, CHUNK)

    assert given == [2 * CHUNK + 16]


@pytest.mark.parametrize("at", [2 * CHUNK, 2 * CHUNK + 15, 2 * CHUNK + 16, 3 * CHUNK + 15])
async def test_a_chunk_of_which_a_bit_was_flipped_does_not_come(
    calls: Calls, film: Media, path: Path, at: int
) -> None:
    await replace(calls, film, flipped(at))

    with pytest.raises(FileForged):
        await read(calls, film, 2 * CHUNK + 100, 100)

    assert await read(calls, film, 5, 100) == path.read_bytes()[5:105]


async def test_what_comes_before_a_flipped_bit_was_proved(
    calls: Calls, film: Media, path: Path
) -> None:
    await replace(calls, film, flipped(3 * CHUNK + 100))
    came: list[bytes] = []

    async def take() -> None:
        async for piece in ranges.read(film, 0, None, calls=calls):
            came.append(piece)  # noqa: PERF401  what came before the error counts

    with pytest.raises(FileForged):
        await take()

    assert b"".join(came) == path.read_bytes()[: 3 * CHUNK]


async def test_chunks_that_changed_places_do_not_come(calls: Calls, film: Media) -> None:
    def swapped(body: bytes) -> bytes:
        one, other = body[16 : 16 + CHUNK], body[16 + CHUNK : 16 + 2 * CHUNK]
        return body[:16] + other + one + body[16 + 2 * CHUNK :]

    await replace(calls, film, swapped)

    for start in (0, CHUNK):
        with pytest.raises(FileForged):
            await read(calls, film, start, 1)


@pytest.mark.parametrize(
    ("size", "digests"), [(CHUNK, b""), (CHUNK, bytes(32)), (1, bytes(32)), (1 << 31, bytes(32))]
)
async def test_a_message_that_tells_chunks_that_cannot_be_is_refused(
    calls: Calls, film: Media, size: int, digests: bytes
) -> None:
    film.pointer.chunk_size, film.pointer.chunk_digests = size, digests

    with pytest.raises(FileForged):
        await read(calls, film, 0, 1)


async def test_a_file_whose_message_proves_no_parts_is_not_read_in_parts(
    calls: Calls, film: Media
) -> None:
    film.pointer.ClearField("chunk_size")

    with pytest.raises(RangeUnproved):
        await read(calls, film, 0, 1)


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1)])
async def test_a_range_that_cannot_be_is_refused(
    calls: Calls, film: Media, start: int, length: int
) -> None:
    with pytest.raises(ValueError, match="a range begins at 0"):
        await read(calls, film, start, length)


def listening(patch: pytest.MonkeyPatch, told: Callable) -> None:
    """Hear of each answer of the store."""
    import httpx

    make = httpx.AsyncClient
    patch.setattr(
        "whimbrel_client.media.transfer.httpx.AsyncClient",
        lambda **more: make(event_hooks={"response": [told]}, **more),
    )
