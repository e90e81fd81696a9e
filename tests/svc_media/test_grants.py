"""What a grant allows, and what it does not; the store's answers are the real one's."""

import os
from datetime import timedelta

import pytest

from mesh.errors import InvalidArgument
from mesh.ids import new_ulid, random_id
from svc_media.model import (
    MOST_BYTES,
    PART_BYTES,
    Draft,
    MediaIncomplete,
    MediaTooLarge,
    MediaUnknown,
    QuotaExceeded,
    RateLimited,
)
from tests.svc_media.conftest import Service, draft_of, media_id_of

ANN, BOB = new_ulid(), new_ulid()


async def fetched(service: Service, granted, **headers: str):
    url, _ = await service.grants.create_download(BOB, media_id_of(granted))
    return await service.http.get(url, headers=headers)


async def test_whoever_knows_the_file_fetches_it_whole_or_by_range(service: Service) -> None:
    content = os.urandom(100_000)

    granted = await service.upload(ANN, content)
    whole = await fetched(service, granted)
    part = await fetched(service, granted, range="bytes=500-699")

    assert whole.content == content
    assert (part.status_code, part.content) == (206, content[500:700])


async def test_a_large_file_goes_up_in_parts_and_is_resumed(service: Service) -> None:
    content = os.urandom(2 * PART_BYTES + 7)
    draft = draft_of(content)
    first = await service.grants.create_upload(ANN, draft)
    put = first.puts[1]
    part = content[put.offset : put.offset + put.size]
    await service.http.put(put.url, headers=put.headers, content=part)

    again = await service.grants.create_upload(ANN, draft)
    with pytest.raises(MediaIncomplete):
        await service.grants.complete_upload(ANN, media_id_of(first))
    with pytest.raises(MediaUnknown):
        await fetched(service, first)
    for put in again.puts:
        part = content[put.offset : put.offset + put.size]
        (await service.http.put(put.url, headers=put.headers, content=part)).raise_for_status()
    for _ in range(2):
        await service.grants.complete_upload(ANN, media_id_of(first))
    done = await service.grants.create_upload(ANN, draft)

    assert len(first.puts) == 3
    assert [one.offset for one in again.puts] == [0, 2 * PART_BYTES]
    assert again.media_id == first.media_id == done.media_id
    assert done.puts == []
    assert (await fetched(service, first)).content == content


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:-1] + bytes([body[-1] ^ 1]),
        lambda body: body[:-1],
        lambda body: body + b"x",
    ],
    ids=["wrong checksum", "short", "long"],
)
async def test_the_store_takes_nothing_but_what_was_granted(service: Service, change) -> None:
    content = os.urandom(1000)
    granted = await service.grants.create_upload(ANN, draft_of(content))
    [put] = granted.puts
    body = change(content)

    headers = {**put.headers, "content-length": str(len(body))}
    answer = await service.http.put(put.url, headers=headers, content=body)

    assert answer.status_code in (400, 403)
    assert (await fetched(service, granted)).status_code == 404


async def test_a_grant_ends_after_five_minutes(service: Service) -> None:
    content = b"late"
    service.clock._start -= timedelta(minutes=5, seconds=2)
    granted = await service.grants.create_upload(ANN, draft_of(content))
    [put] = granted.puts

    answer = await service.http.put(put.url, headers=put.headers, content=content)

    assert answer.status_code == 403
    assert (await fetched(service, granted)).status_code == 403


async def test_a_grant_is_good_for_one_object_and_one_method(service: Service) -> None:
    content = b"mine"
    granted = await service.grants.create_upload(ANN, draft_of(content))
    other = await service.upload(BOB, b"yours")
    [put] = granted.puts

    moved = put.url.replace(granted.media_id, other.media_id)
    answers = [
        await service.http.put(moved, headers=put.headers, content=content),
        await service.http.get(put.url),
        await service.http.delete(put.url),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert (await fetched(service, other)).content == b"yours"


async def test_what_its_uploader_calls_it_is_not_what_a_browser_is_told(service: Service) -> None:
    content = b"<script>alert(1)</script>"
    granted = await service.grants.create_upload(ANN, draft_of(content))
    [put] = granted.puts
    headers = {**put.headers, "content-type": "text/html"}
    (await service.http.put(put.url, headers=headers, content=content)).raise_for_status()

    answer = await fetched(service, granted)

    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"


async def test_nobody_completes_somebody_elses_upload(service: Service) -> None:
    content = os.urandom(PART_BYTES + 1)
    granted = await service.upload(ANN, content, complete=False)

    for media_id in (media_id_of(granted), random_id()):
        with pytest.raises(MediaUnknown):
            await service.grants.complete_upload(BOB, media_id)


async def test_one_upload_id_is_one_upload_of_its_owner(service: Service) -> None:
    draft = draft_of(b"once")

    first = await service.grants.create_upload(ANN, draft)
    again = await service.grants.create_upload(ANN, draft_of(b"other", draft.upload_id))
    others = await service.grants.create_upload(BOB, draft)

    assert first.media_id == again.media_id
    assert again.puts[0].headers == first.puts[0].headers
    assert others.media_id != first.media_id
    assert await service.rows("SELECT owner, bytes FROM usage ORDER BY bytes, owner") == [
        (owner, 4) for owner in sorted((ANN, BOB))
    ]


def test_a_wish_with_another_number_of_parts_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Draft(bytes(16), 5, bytes(32), [bytes(32)])

    assert caught.value.metadata["field"] == "part_sha256"


def test_a_file_is_not_too_large() -> None:
    with pytest.raises(MediaTooLarge) as caught:
        Draft(bytes(16), MOST_BYTES + 1, bytes(32), [])

    assert caught.value.metadata == {"allowed": str(MOST_BYTES)}


@pytest.mark.parametrize("more_settings", [{"quota": 1000}])
async def test_an_account_has_so_many_bytes_a_day(service: Service) -> None:
    service.clock._start = service.clock._start.replace(hour=23, minute=30)
    await service.grants.create_upload(ANN, draft_of(bytes(600)))

    with pytest.raises(QuotaExceeded) as caught:
        await service.grants.create_upload(ANN, draft_of(bytes(401)))
    await service.grants.create_upload(ANN, draft_of(bytes(400)))
    await service.grants.create_upload(BOB, draft_of(bytes(1000)))
    with pytest.raises(QuotaExceeded):
        await service.grants.create_upload(BOB, draft_of(bytes(1)))
    await service.clock.advance(1801)
    await service.grants.create_upload(ANN, draft_of(bytes(1000)))

    assert caught.value.metadata == {"allowed": "1000"}
    assert timedelta(0) < (caught.value.retry_after or timedelta(0)) <= timedelta(minutes=30)


@pytest.mark.parametrize("more_settings", [{"grants_at_once": 3, "grant_each": 10}])
async def test_who_asks_too_often_waits(service: Service) -> None:
    for _ in range(3):
        await service.grants.create_upload(ANN, draft_of(b"x"))

    with pytest.raises(RateLimited) as caught:
        await service.grants.create_download(ANN, random_id())
    await service.grants.create_upload(BOB, draft_of(b"x"))
    await service.clock.advance(10)
    await service.grants.create_upload(ANN, draft_of(b"x"))

    assert caught.value.retry_after == timedelta(seconds=10)
