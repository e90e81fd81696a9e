"""Bytes to the store and from it, over HTTP; knows URLs and no keys."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum, auto
from itertools import islice

import httpx

from whimbrel_client.media.errors import FileChanged, TransferFailed

log = logging.getLogger(__name__)

_SECONDS = 30.0
_PIECE = 256 * 1024
_PIECES_AT_ONCE = 4  # read by one turn of a thread

# They write down URLs, which are secrets, unless an application wants them to.
for _name in ("httpx", "httpcore"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.WARNING)


class Answer(Enum):
    """What became of one request."""

    DONE = auto()
    TRY_AGAIN = auto()  # with a new URL


@asynccontextmanager
async def transfers() -> AsyncIterator[httpx.AsyncClient]:
    """A client for the requests of one file; like the streams, it goes through no proxy."""
    async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as http:
        yield http


async def put(
    http: httpx.AsyncClient, url: str, headers: Mapping[str, str], pieces: AsyncIterator[bytes]
) -> Answer:
    """Bring the pieces. Raises FileChanged, TransferFailed."""
    try:
        answer = await http.put(url, headers=dict(headers), content=pieces)
    except httpx.TransportError:
        return Answer.TRY_AGAIN
    if answer.is_success:
        return Answer.DONE
    if answer.status_code == httpx.codes.BAD_REQUEST and _is_about_content(answer):
        raise FileChanged("the file changed while it was being sent")
    return _again(answer.status_code)


async def get(
    http: httpx.AsyncClient, url: str, offset: int, end: int | None = None
) -> AsyncGenerator[bytes, None]:
    """The bytes from `offset` on, or to `end`, as far as they come; raises TransferFailed.

    It ends without an error where the connection or the URL does.
    """
    headers = {"accept-encoding": "identity"}
    is_part = offset > 0 or end is not None
    if is_part:
        headers["range"] = f"bytes={offset}-{'' if end is None else end - 1}"
    try:
        async with http.stream("GET", url, headers=headers) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            if answer.status_code != (httpx.codes.PARTIAL_CONTENT if is_part else httpx.codes.OK):
                _again(answer.status_code)
                return
            async for piece in _in_large_pieces(answer):
                yield piece
    except httpx.TransportError:
        return


async def _in_large_pieces(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    """What comes, a thread's worth at a time; what came before a connection broke is not lost."""
    held = bytearray()
    try:
        async for some in answer.aiter_raw():
            held += some
            if len(held) >= _PIECE:
                yield bytes(held)
                held.clear()
    except httpx.TransportError:
        log.debug("a connection to the store has broken")
    if held:
        yield bytes(held)


async def from_thread(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Pieces that a thread makes, some at a time."""
    while some := await asyncio.to_thread(lambda: list(islice(pieces, _PIECES_AT_ONCE))):
        for piece in some:
            yield piece


def _again(status: int) -> Answer:
    """Whether a new URL, or more time, may help. Raises TransferFailed."""
    if status in (httpx.codes.FORBIDDEN, httpx.codes.TOO_MANY_REQUESTS) or status >= 500:
        return Answer.TRY_AGAIN
    raise TransferFailed(f"the store answers {status}")


def _is_about_content(answer: httpx.Response) -> bool:
    return b"Digest" in answer.content or b"Checksum" in answer.content
