"""Reports over two shards: bounded, exact in number, newest first, and gone with their time."""

import asyncio
from datetime import timedelta

import pytest

from mesh.caller import Caller
from mesh.errors import InvalidArgument
from mesh.ids import random_id, slot_of
from svc_message.identity.buckets import RateLimited
from svc_message.identity.devices_model import DeviceRevoked
from svc_message.identity.reports import MOST_BYTES, NewReport, Reports
from svc_message.identity.reports_store import AccountUnknown, ReportStore
from svc_message.shards.directory import ShardUnavailable
from svc_message.shards.slot_rows import remove_account

MOST = 5


@pytest.fixture
async def people(bulk_accounts):
    return [Caller(account.user_id, 1, 1) for account in await bulk_accounts(8)]


@pytest.fixture
def reports(shards):
    return Reports(ReportStore(shards), most_a_day=MOST, keep=timedelta(days=90))


def a_report(of: Caller, **changed) -> NewReport:
    fields = {
        "report_id": random_id(),
        "user_id": of.user_id,
        "reason": 1,
        "message_ids": [random_id()],
        "content": b"what was said",
    }
    return NewReport(**{**fields, **changed})


async def all_of(reports, *, limit=3):
    found, before = [], None
    while True:
        page, before = await reports.page(before, limit)
        found += page
        if before is None:
            return found


async def pool_of(shards, caller):
    return shards.pool(shards.shard_of(slot_of(caller.user_id)))


async def test_reports_of_all_shards_are_read_by_pages_newest_first(reports, people, shards):
    made = []
    for reporter in people[1:]:
        made.append(a_report(people[0], content=bytes(reporter.user_id)))
        await reports.report(reporter, made[-1])

    found = await all_of(reports)

    assert {shards.shard_of(slot_of(one.user_id)) for one in people[1:]} == set(shards.names)
    assert [kept.report_id for kept in found] == [new.report_id for new in reversed(made)]
    assert [kept.user_id for kept in found] == [one.user_id for one in reversed(people[1:])]
    assert found[0].content == made[-1].content


async def test_a_page_ends_before_it_gets_too_large(reports, people):
    for reporter in people[1:]:
        for _ in range(3):
            await reports.report(reporter, a_report(people[0], content=bytes(MOST_BYTES)))

    page, after = await reports.page(None, 100)

    assert 0 < sum(len(kept.content) for kept in page) <= 1024 * 1024
    assert after is not None
    assert len(await all_of(reports, limit=100)) == 21


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"report_id": b"short"}, "report_id"),
        ({"user_id": b"short"}, "user_id"),
        ({"reason": 0}, "reason"),
        ({"reason": 6}, "reason"),
        ({"message_ids": [bytes(16)] * 21}, "messages"),
        ({"message_ids": [b"short"]}, "messages.message_id"),
        ({"content": bytes(MOST_BYTES + 1)}, "messages"),
    ],
)
async def test_what_is_out_of_bounds_is_named_and_not_kept(reports, people, changed, field):
    with pytest.raises(InvalidArgument) as refused:
        await reports.report(people[0], a_report(people[1], **changed))

    assert refused.value.metadata["field"] == field
    assert await all_of(reports) == []


async def test_neither_oneself_nor_nobody_is_reported(reports, people):
    with pytest.raises(InvalidArgument) as refused:
        await reports.report(people[0], a_report(people[0]))
    with pytest.raises(AccountUnknown):
        await reports.report(people[0], a_report(people[1], user_id=random_id()))

    assert refused.value.metadata["field"] == "user_id"
    assert await all_of(reports) == []


async def test_a_credential_that_was_replaced_reports_nobody(reports, people):
    old = Caller(people[0].user_id, 1, 0)

    with pytest.raises(DeviceRevoked):
        await reports.report(old, a_report(people[1]))


async def test_of_a_flood_as_many_are_kept_as_may_be_made_in_a_day(reports, people, shards):
    made = [a_report(people[1]) for _ in range(MOST + 4)]

    answers = await asyncio.gather(
        *(reports.report(people[0], new) for new in made), return_exceptions=True
    )

    refused = [answer for answer in answers if isinstance(answer, RateLimited)]
    assert len(refused) == 4
    assert refused[0].metadata == {"limit": "reports", "allowed": str(MOST)}
    assert timedelta(hours=23) < refused[0].retry_after <= timedelta(days=1)
    assert len(await all_of(reports)) == MOST


async def test_the_same_report_again_is_the_same_report(reports, people):
    made = [a_report(people[1]) for _ in range(MOST)]
    for new in [*made, *made]:
        await reports.report(people[0], new)

    assert len(await all_of(reports)) == MOST


async def test_old_reports_and_those_of_an_account_that_is_removed_are_gone(
    reports, people, shards
):
    for reporter in people[:3]:
        await reports.report(reporter, a_report(people[4]))
    old, leaver, kept = people[:3]
    await (await pool_of(shards, old)).execute(
        "UPDATE report SET reported_at = reported_at - interval '91 days' WHERE user_id = $1",
        old.user_id,
    )

    await reports.sweep()
    async with (await pool_of(shards, leaver)).acquire() as connection:
        await remove_account(connection, slot=slot_of(leaver.user_id), user_id=leaver.user_id)

    assert [one.user_id for one in await all_of(reports)] == [kept.user_id]


async def test_a_page_is_never_without_a_shard(reports, people, shards):
    await shards.pool(shards.names[1]).close()

    with pytest.raises(ShardUnavailable):
        await reports.page(None, 3)
