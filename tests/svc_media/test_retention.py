"""How long objects stay: by references, by a sweep on a clock that the test moves."""

import os
from datetime import timedelta

import pytest

from mesh.ids import new_ulid, random_id
from svc_media.model import PART_BYTES, MediaUnknown
from tests.svc_media.conftest import Service, media_id_of
from tests.svc_media.store import bucket_of, signed

ANN = new_ulid()
DAY = 86_400.0


async def is_in_store(service: Service, s3_url: str, granted) -> bool:
    answer = await service.http.head(signed(bucket_of(s3_url), "HEAD", granted.media_id))
    return answer.status_code == 200


async def refer(service: Service, granted, days: float) -> None:
    until = service.clock.now() + timedelta(days=days)
    await service.retention.refer([(media_id_of(granted), until)])


async def test_what_no_message_refers_to_goes_after_a_day(service: Service, s3_url: str) -> None:
    orphan = await service.upload(ANN, b"orphan")
    kept = await service.upload(ANN, b"kept")
    await refer(service, kept, 30)

    await service.clock.advance(DAY - 1)
    early = await service.retention.sweep()
    await service.clock.advance(2)
    with pytest.raises(MediaUnknown):
        await service.grants.create_download(ANN, media_id_of(orphan))
    late = await service.retention.sweep()

    assert (early, late) == (0, 1)
    assert not await is_in_store(service, s3_url, orphan)
    assert await is_in_store(service, s3_url, kept)


async def test_an_object_stays_as_long_as_the_last_message_but_sixty_days_at_most(
    service: Service,
) -> None:
    granted = await service.upload(ANN, b"forwarded")
    await refer(service, granted, 30)
    await refer(service, granted, 10)  # what expires earlier takes nothing away

    await service.clock.advance(29 * DAY)
    assert await service.retention.sweep() == 0
    await refer(service, granted, 30)
    await refer(service, granted, 30)
    await service.clock.advance(30 * DAY - 60)
    assert await service.retention.sweep() == 0
    await refer(service, granted, 30)
    await service.clock.advance(DAY + 120)

    assert await service.retention.sweep() == 1
    assert await service.rows("SELECT FROM media") == []


async def test_an_upload_that_ended_in_the_middle_is_removed_with_its_parts(
    service: Service,
) -> None:
    granted = await service.upload(ANN, os.urandom(PART_BYTES + 1), complete=False)
    [(multipart_id,)] = await service.rows("SELECT multipart_id FROM media")
    await service.clock.advance(DAY + 1)

    removed = await service.retention.sweep()

    query = {"uploadId": str(multipart_id)}
    listing = signed(service.settings.bucket, "GET", granted.media_id, query=query)
    assert removed == 1
    assert (await service.http.get(listing)).status_code == 404


async def test_a_sweep_that_was_cut_off_is_finished_by_the_next(
    service: Service, s3_url: str, monkeypatch
) -> None:
    granted = await service.upload(ANN, b"x")
    await service.clock.advance(DAY + 1)

    async def dies(_media_ids: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(service.retention._store, "forget", dies)
        with pytest.raises(RuntimeError):
            await service.retention.sweep()
    # It is over: a message that comes now does not bring it back.
    await refer(service, granted, 30)

    assert await service.retention.sweep() == 1
    assert not await is_in_store(service, s3_url, granted)


async def test_references_to_what_is_not_there_are_forgotten(service: Service) -> None:
    until = service.clock.now() + timedelta(days=30)

    await service.retention.refer([(random_id(), until), (random_id(), until)])

    assert await service.rows("SELECT FROM media") == []


async def test_the_bucket_removes_by_itself_what_a_sweep_missed(service: Service) -> None:
    asked = signed(service.settings.bucket, "GET", "", query={"lifecycle": ""})

    lifecycle = (await service.http.get(asked)).text

    assert "<Expiration><Days>61</Days></Expiration>" in lifecycle
    assert "<DaysAfterInitiation>2</DaysAfterInitiation>" in lifecycle
