"""The SDK's two ways of a file against the service's own parts and the real store."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh.errors import WhimbrelError
from mesh.ids import new_ulid, parse_ulid
from svc_media.model import Draft
from tests.svc_media.conftest import Service, more_settings, service
from tests.svc_media.store import signed
from whimbrel.content.v1.content_pb2 import Media
from whimbrel.media.v1 import media_pb2
from whimbrel_client import CallFailed
from whimbrel_client.crypto import AttachmentPlan
from whimbrel_client.media.sending import Uploading
from whimbrel_client.media.uploads import UploadStore
from whimbrel_client.store import Store

__all__ = ["more_settings", "service"]


@dataclass
class Calls:
    """The media service without the way to it; a test may break what it answers."""

    service: Service
    owner: bytes = field(default_factory=new_ulid)
    asked: list[int] = field(default_factory=list)  # how many puts each grant had
    twist: object = None  # changes a URL

    async def upload(
        self, upload_id: bytes, plan: AttachmentPlan
    ) -> media_pb2.CreateUploadResponse:
        parts = plan.part_digests if len(plan.part_digests) > 1 else []
        draft = Draft(upload_id, plan.size, plan.key.digest, parts)
        try:
            granted = await self.service.grants.create_upload(self.owner, draft)
        except WhimbrelError as error:
            raise CallFailed(error.reason, error.message) from error
        self.asked.append(len(granted.puts))
        puts = [
            media_pb2.Put(
                url=self._url(one.url), headers=one.headers, offset=one.offset, size=one.size
            )
            for one in granted.puts
        ]
        return media_pb2.CreateUploadResponse(media_id=granted.media_id, puts=puts)

    async def complete(self, media_id: str) -> None:
        await self.service.grants.complete_upload(self.owner, parse_ulid(media_id))

    async def download(self, media_id: str) -> str:
        url, _ = await self.service.grants.create_download(self.owner, parse_ulid(media_id))
        return self._url(url)

    def _url(self, url: str) -> str:
        return self.twist(url) if callable(self.twist) else url


async def replace(calls: Calls, media: Media, change: Callable[[bytes], bytes]) -> None:
    """Put other bytes into the store, as its operator could."""
    bucket, http = calls.service.settings.bucket, calls.service.http
    key = media.pointer.media_id
    body = (await http.get(signed(bucket, "GET", key))).content
    (await http.put(signed(bucket, "PUT", key), content=change(body))).raise_for_status()


@pytest.fixture
def calls(service: Service) -> Calls:
    return Calls(service)


@pytest.fixture
async def uploads(tmp_path: Path) -> AsyncIterator[UploadStore]:
    store = Store(tmp_path / "profile" / "store.db")
    await store.open()
    yield store.uploads
    await store.close()


@pytest.fixture
def uploading(uploads: UploadStore, calls: Calls) -> Uploading:
    return Uploading(uploads, calls)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "film.bin"
    path.write_bytes(os.urandom(200_000))
    return path
