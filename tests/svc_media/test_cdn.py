"""Downloads by a CDN: signed for it, and refused by it when anything of that is changed."""

import os
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from mesh.ids import new_ulid
from svc_media.signing import Edge
from tests.edge.edge import CdnEdge, running_edge
from tests.svc_media.conftest import Service, media_id_of

ANN = new_ulid()
KEY = os.urandom(32)


@pytest.fixture
async def edge(service: Service) -> AsyncIterator[CdnEdge]:
    async with running_edge(service.settings.bucket, {"2026-11": KEY}) as edge:
        service.grants._edge = Edge(edge.address, "2026-11", KEY)
        yield edge


async def test_a_cdn_gives_what_was_signed_and_asks_the_bucket_once(
    service: Service, edge: CdnEdge
) -> None:
    content = os.urandom(5000)
    media_id = media_id_of(await service.upload(ANN, content))

    urls = [(await service.grants.create_download(ANN, media_id))[0] for _ in range(3)]
    whole = [(await service.http.get(url)).content for url in urls]
    part = await service.http.get(urls[0], headers={"range": "bytes=4000-"})

    assert whole == [content] * 3
    assert (part.status_code, part.content) == (206, content[4000:])
    assert edge.fetched == 1


async def test_a_cdn_refuses_what_is_changed_late_or_signed_by_others(
    service: Service, edge: CdnEdge
) -> None:
    media_id = media_id_of(await service.upload(ANN, b"first"))
    other = (await service.upload(ANN, b"other")).media_id
    url, _ = await service.grants.create_download(ANN, media_id)
    now, span = service.clock.now(), timedelta(minutes=5)
    key = url.rpartition("/")[2].partition("?")[0]

    late = Edge(edge.address, "2026-11", KEY).presign(key, now=now - 2 * span, lifetime=span)
    strange = Edge(edge.address, "2026-11", bytes(32)).presign(key, now=now, lifetime=span)
    unknown = Edge(edge.address, "2025", KEY).presign(key, now=now, lifetime=span)
    longer = url.replace("exp=", "exp=9")
    tried = [url.replace(key, other), longer, late, strange, unknown, url.partition("?")[0]]

    assert [(await service.http.get(one)).status_code for one in tried] == [403] * 6
    assert (await service.http.get(url)).content == b"first"
    assert edge.fetched == 1


@pytest.mark.parametrize(
    "more_settings",
    [{"cdn_address": "https://cdn.example/m/", "cdn_key_id": "k", "cdn_key": KEY.hex()}],
)
async def test_with_a_cdn_in_the_settings_devices_are_sent_there(service: Service) -> None:
    granted = await service.upload(ANN, b"x")

    url, _ = await service.grants.create_download(ANN, media_id_of(granted))

    assert url.startswith(f"https://cdn.example/m/{granted.media_id}?kid=k&exp=")
    assert KEY.hex() not in repr(service.settings)
