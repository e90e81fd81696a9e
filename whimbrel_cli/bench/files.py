"""Files: what a grant costs the mesh, and how fast one goes through the SDK and the store.

The SDK works in a process of its own, whose memory nothing else has touched.
"""

import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import grpc
import httpx

from whimbrel.media.v1 import media_pb2, media_pb2_grpc
from whimbrel_cli.bench import file_sdk
from whimbrel_cli.bench.counting import Counter
from whimbrel_cli.bench.running import bulk_people
from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client.media.sending import PART_BYTES

T = TypeVar("T")

_MIB = 1 << 20
_GRANTS = 4_000
_ASK_AT_ONCE = 4  # a gateway takes few calls at once on one connection
_TRANSFERS_AT_ONCE = 2
_MOST_ALONE_MIB = 512

Metadata = tuple[tuple[str, str], ...]


async def measured(mib: int = 1024, grants: int = _GRANTS) -> Mapping[str, float]:
    """All figures, of a mesh of one instance each. Raises StackError."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as directory:
        data = Path(directory) / "mesh"
        env = {"WHIMBREL_MEDIA_GRANTS_AT_ONCE": str(8 * grants)}
        try:
            async with Mesh(
                data,
                gateways=1,
                message=1,
                shards=1,
                media=1,
                env_of={"media-1": env},
                insecure=True,
            ) as mesh:
                return {
                    **await _with_stub(mesh, lambda asking: _grants(mesh, asking, grants)),
                    **await _with_stub(mesh, lambda asking: _store_alone(asking, mib)),
                    **await _in_a_process(mesh, Path(directory), mib),
                }
        finally:
            cluster.remove(data / "postgres")


class _Asking:
    """One person who asks the media service by the gateway."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub = media_pb2_grpc.MediaServiceStub(channel)
        self._metadata: Metadata = (("authorization", f"Bearer {token}"),)

    async def upload(
        self, size: int, parts: Sequence[bytes] = ()
    ) -> media_pb2.CreateUploadResponse:
        wish = media_pb2.CreateUploadRequest(
            upload_id=os.urandom(16),
            size=size,
            sha256=bytes(32),
            purpose=media_pb2.PURPOSE_MESSAGE,
            part_sha256=parts,
        )
        return await self._stub.CreateUpload(wish, metadata=self._metadata)

    async def complete(self, media_id: str) -> None:
        wish = media_pb2.CompleteUploadRequest(media_id=media_id)
        await self._stub.CompleteUpload(wish, metadata=self._metadata)

    async def download(self, media_id: str) -> str:
        wish = media_pb2.CreateDownloadRequest(media_id=media_id)
        return (await self._stub.CreateDownload(wish, metadata=self._metadata)).url


async def _with_stub(mesh: Mesh, work: Callable[[_Asking], Awaitable[T]]) -> T:
    (person,) = await bulk_people(mesh, 1)
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        return await work(_Asking(channel, person.token))


async def _grants(mesh: Mesh, asking: _Asking, count: int) -> Mapping[str, float]:
    """CPU of one grant, of uploads and downloads by halves: the service's, and the whole mesh's."""

    async def pairs(many: int) -> None:
        for _ in range(many):
            await asking.download((await asking.upload(100_000)).media_id)

    async def ask(many: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_ASK_AT_ONCE):
                tasks.create_task(pairs(many // 2 // _ASK_AT_ONCE), name="ask")

    await ask(count // 4)
    counter = Counter(mesh)
    before = counter.sample()
    await ask(count)
    by_process = counter.sample().cpu_us_since(before, count)
    return {"grant_cpu_us": by_process["media-1"], "grant_mesh_cpu_us": sum(by_process.values())}


async def _store_alone(asking: _Asking, mib: int) -> Mapping[str, float]:
    """How fast the store takes and gives bytes that nobody seals, to the same HTTP client."""
    content, parts = os.urandom(PART_BYTES), max(1, min(mib, _MOST_ALONE_MIB) * _MIB // PART_BYTES)
    digests = [hashlib.sha256(content).digest()] * parts if parts > 1 else []
    size = parts * PART_BYTES
    granted = await asking.upload(size, digests)
    turns = asyncio.Semaphore(_TRANSFERS_AT_ONCE)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:

        async def put(one: media_pb2.Put) -> None:
            async with turns:
                answer = await http.put(one.url, headers=dict(one.headers), content=content)
                answer.raise_for_status()

        began = time.monotonic()
        await asyncio.gather(*map(put, granted.puts))
        put_seconds = time.monotonic() - began
        await asking.complete(granted.media_id)
        url, began = await asking.download(granted.media_id), time.monotonic()
        async with http.stream("GET", url) as answer:
            async for _ in answer.aiter_raw():
                pass
        get_seconds = time.monotonic() - began
    return {
        "store_takes_mib_per_s": size / _MIB / put_seconds,
        "store_gives_mib_per_s": size / _MIB / get_seconds,
    }


async def _in_a_process(mesh: Mesh, folder: Path, mib: int) -> Mapping[str, float]:
    argv = ("-m", file_sdk.__name__, mesh.gateway_addresses[0], str(folder), str(mib))
    measuring = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await measuring.communicate()
    if measuring.returncode:
        raise StackError("the files could not be measured")
    figures: dict[str, float] = json.loads(out)
    return figures
