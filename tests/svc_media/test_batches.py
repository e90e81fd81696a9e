"""Grants that are asked for at once go to the database together, and are as exact as one by one."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta

import pytest

from mesh.errors import Unavailable
from mesh.ids import new_ulid, random_id
from mesh.postgres import acquired, fetch
from svc_media.grants import Granted
from svc_media.model import QuotaExceeded
from svc_media.store import MediaStore
from tests.svc_media.conftest import Service, draft_of, media_id_of

ANN, BOB, CID = sorted(new_ulid() for _ in range(3))

WAITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
CUT_OFF = WAITING.replace("pid", "pg_terminate_backend(pid)", 1)


@pytest.fixture
def more_settings() -> dict[str, object]:
    return {"quota": 1000}


async def used(service: Service, owner: bytes) -> int:
    [[size]] = await fetch(
        service.pool, "SELECT coalesce(sum(bytes), 0)::bigint FROM usage WHERE owner = $1", owner
    )
    return size


async def test_a_quota_is_exact_over_what_is_asked_at_once(service: Service) -> None:
    wishes = [(owner, draft_of(os.urandom(90))) for _ in range(40) for owner in (BOB, ANN)]

    asked = (service.grants.create_upload(*wish) for wish in wishes)
    got = await asyncio.gather(*asked, return_exceptions=True)

    for owner in (ANN, BOB):
        own = [one for (who, _), one in zip(wishes, got, strict=True) if who == owner]
        # The first come, first served: eleven times 90 is 990.
        assert [isinstance(one, Granted) for one in own] == [True] * 11 + [False] * 29
        assert all(isinstance(one, QuotaExceeded) for one in own[11:])
        assert await used(service, owner) == 990


async def test_one_upload_asked_for_many_times_at_once_is_one_and_counts_once(
    service: Service,
) -> None:
    draft = draft_of(bytes(600))

    got = await asyncio.gather(*(service.grants.create_upload(ANN, draft) for _ in range(8)))

    assert len({one.media_id for one in got}) == 1
    assert await used(service, ANN) == 600


async def test_one_wish_that_cannot_be_written_costs_the_others_nothing(service: Service) -> None:
    faulty = replace(draft_of(b"x"), sha256="no bytes")

    got = await asyncio.gather(
        *(service.grants.create_upload(who, draft_of(bytes(10))) for who in (ANN, BOB)),
        service.grants.create_upload(CID, faulty),
        return_exceptions=True,
    )

    assert isinstance(got[0], Granted)
    assert isinstance(got[1], Granted)
    assert isinstance(got[2], Unavailable)
    assert [await used(service, who) for who in (ANN, BOB, CID)] == [10, 10, 0]


async def test_each_of_many_that_fetch_at_once_gets_its_own(service: Service) -> None:
    contents = [os.urandom(20) for _ in range(5)]
    granted = [await service.upload(ANN, content) for content in contents]
    asked = [*map(media_id_of, granted), random_id()]

    got = await asyncio.gather(
        *(service.grants.create_download(BOB, media_id) for media_id in asked),
        return_exceptions=True,
    )
    fetched = [(await service.http.get(url)).content for url, _ in got[:-1]]

    assert fetched == contents
    assert getattr(got[-1], "reason", "") == "MEDIA_UNKNOWN"


async def test_a_batch_that_was_cut_off_is_repeated_without_counting_twice(
    service: Service,
) -> None:
    await service.grants.create_upload(BOB, draft_of(bytes(100)))
    wishes = [(owner, draft_of(bytes(100))) for owner in (ANN, BOB, CID)]
    async with acquired(service.pool, within=timedelta(seconds=5)) as other, other.transaction():
        # It has written ANN's when it comes to BOB's row, and waits there.
        await other.execute("SELECT FROM usage WHERE owner = $1 FOR UPDATE", BOB)
        asked = asyncio.gather(
            *(service.grants.create_upload(*wish) for wish in wishes), return_exceptions=True
        )
        async with asyncio.timeout(10):
            while not await fetch(service.pool, CUT_OFF):
                await asyncio.sleep(0.01)
        cut = await asked

    await asyncio.gather(*(service.grants.create_upload(*wish) for wish in wishes))

    assert [type(one).__name__ for one in cut] == ["StoreUnavailable"] * 3
    assert [await used(service, who) for who in (ANN, BOB, CID)] == [100, 200, 100]


async def test_two_batches_with_the_same_owners_do_not_wait_for_each_other(
    service: Service,
) -> None:
    for owner in (ANN, BOB, CID):
        await service.grants.create_upload(owner, draft_of(bytes(10)))
    now = service.clock.now()

    async def ask(*owners: bytes) -> list[object]:
        store, times = MediaStore(service.pool), {"now": now, "expires_at": now + timedelta(1)}
        wishes = (store.create(one, draft_of(bytes(10)), quota=1000, **times) for one in owners)
        return await asyncio.gather(*wishes)

    async def wait(count: int) -> None:
        async with asyncio.timeout(10):
            while len(await fetch(service.pool, WAITING)) != count:
                await asyncio.sleep(0.01)

    async with acquired(service.pool, within=timedelta(seconds=5)) as other:
        async with other.transaction():
            await other.execute("SELECT FROM usage WHERE owner = $1 FOR UPDATE", CID)
            first = asyncio.ensure_future(ask(BOB, CID, ANN))
            await wait(1)
            second = asyncio.ensure_future(ask(ANN, BOB))
            await wait(2)
        granted = await asyncio.gather(first, second)

    assert None not in [upload for uploads in granted for upload in uploads]
    assert [await used(service, who) for who in (ANN, BOB, CID)] == [30, 30, 20]
