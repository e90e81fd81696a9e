"""The media service's parts on a database of the test's own and the run's object store."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

import httpx
import pytest

from mesh.ids import parse_ulid
from mesh.postgres import Pool, fetch, open_pool
from mesh.testing import ManualClock
from svc_media.app import build
from svc_media.grants import Granted, Grants
from svc_media.model import PART_BYTES, Draft
from svc_media.preparing import prepare
from svc_media.retention import Retention
from svc_media.settings import Settings
from svc_media.transport import transport
from tests.svc_media.store import settings_of


@dataclass
class Service:
    """What a test talks to."""

    grants: Grants
    retention: Retention
    clock: ManualClock
    http: httpx.AsyncClient
    pool: Pool
    settings: Settings

    async def upload(self, owner: bytes, content: bytes, *, complete: bool = True) -> Granted:
        """Bring a file as a device does."""
        granted = await self.grants.create_upload(owner, draft_of(content))
        for put in granted.puts:
            part = content[put.offset : put.offset + put.size]
            answer = await self.http.put(put.url, headers=put.headers, content=part)
            answer.raise_for_status()
        if complete and len(content) > PART_BYTES:
            await self.grants.complete_upload(owner, media_id_of(granted))
        return granted

    async def rows(self, statement: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in await fetch(self.pool, statement)]


def draft_of(content: bytes, upload_id: bytes | None = None) -> Draft:
    parts = [content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES)]
    digests = [sha256(part).digest() for part in parts] if len(parts) > 1 else []
    return Draft(upload_id or os.urandom(16), len(content), sha256(content).digest(), digests)


def media_id_of(granted: Granted) -> bytes:
    return parse_ulid(granted.media_id)


@pytest.fixture
def more_settings() -> dict[str, object]:
    """What a test sets otherwise."""
    return {}


@pytest.fixture
async def service(database, s3_url, more_settings) -> AsyncIterator[Service]:
    told = {**settings_of(s3_url), "tls": {"insecure": True}, **more_settings}
    settings = Settings(database=await database(), **told)
    await prepare(settings)
    clock = ManualClock(datetime.now(UTC))
    async with (
        open_pool(settings.dsn, size=4, application_name="test") as pool,
        httpx.AsyncClient(trust_env=False, transport=transport(settings.s3_ca)) as http,
    ):
        grants, retention = build(settings, pool, http, clock)
        yield Service(grants, retention, clock, http, pool, settings)
