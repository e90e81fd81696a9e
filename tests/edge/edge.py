"""A caching, verifying edge: what a CDN before the bucket does, in as few lines as show it.

It lets in what `svc_media.signing.Edge` has signed, fetches a whole object from the bucket once,
with credentials of its own, and answers from its cache, by ranges too.
"""

import asyncio
import contextlib
import hmac
import re
import time
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import httpx

from svc_media.signing import Bucket, edge_token
from tests.svc_media.store import signed

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class CdnEdge:
    """The edge; `fetched` counts what it asked the bucket for."""

    def __init__(self, bucket: Bucket, keys: dict[str, bytes], http: httpx.AsyncClient) -> None:
        self._bucket = bucket
        self._keys = keys
        self._http = http
        self._cache: dict[str, bytes] = {}
        self.fetched = 0
        self.address = ""

    async def answer(self, target: str, range_: str) -> tuple[int, bytes]:
        split = urlsplit(target)
        if not self._admits(split.path, parse_qs(split.query)):
            return 403, b""
        content = await self._object(split.path.rpartition("/")[2])
        if content is None:
            return 404, b""
        found = _RANGE.fullmatch(range_)
        if not found:
            return 200, content
        first, last = int(found[1]), int(found[2] or len(content))
        return (206, content[first : last + 1]) if first < len(content) else (416, b"")

    def _admits(self, path: str, query: dict[str, list[str]]) -> bool:
        try:
            (key_id,), (expires,), (token,) = query["kid"], query["exp"], query["sig"]
            wanted = edge_token(self._keys[key_id], key_id, int(expires), path)
        except (KeyError, ValueError):
            return False
        return hmac.compare_digest(wanted, token) and int(expires) > time.time()

    async def _object(self, key: str) -> bytes | None:
        if key not in self._cache:
            self.fetched += 1
            answer = await self._http.get(signed(self._bucket, "GET", key))
            if answer.status_code != 200:
                return None
            self._cache[key] = answer.content
        return self._cache[key]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        status, body = await self.answer(head.split(" ")[1], headers.get("range", ""))
        told = f"content-type: application/octet-stream\r\ncontent-length: {len(body)}"
        writer.write(f"HTTP/1.1 {status} x\r\n{told}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def running_edge(bucket: Bucket, keys: dict[str, bytes]) -> AsyncIterator[CdnEdge]:
    """The edge on a port of its own."""
    async with httpx.AsyncClient(trust_env=False) as http:
        edge = CdnEdge(bucket, keys, http)
        async with await asyncio.start_server(edge.serve, "127.0.0.1", 0) as server:
            edge.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/media"
            yield edge
