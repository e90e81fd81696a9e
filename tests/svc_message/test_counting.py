"""What an account may do so often a day is exact: of two that count for it, one waits."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest

from mesh.ids import random_id, slot_of
from mesh.postgres import acquired
from tests.faults.town import eventually

CONTACT = """
SELECT outcome
FROM count_first_contacts(ARRAY[$1], ARRAY[$1], ARRAY[$2::bytea], ARRAY[$3::bytea], 1)
"""
REPORT = "SELECT outcome FROM make_report($1, $2, 1::smallint, 1, $3, $3, 1::smallint, '', 1)"
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
DONE, TOO_MANY = 1, 26


@pytest.mark.parametrize("statement", [CONTACT, REPORT], ids=["contact", "report"])
async def test_the_second_of_two_at_once_waits_and_is_one_too_many(
    shards, bulk_accounts, statement
):
    [account] = await bulk_accounts(1)
    slot = slot_of(account.user_id)
    pool = shards.pool(shards.shard_of(slot))
    asked = statement.replace("$1", f"{slot}::smallint").replace("$2", "$1").replace("$3", "$2")

    take = partial(acquired, pool, within=timedelta(seconds=5))
    async with take() as one, take() as other, take() as looking:

        async def is_settled() -> bool:
            return second.done() or bool(await looking.fetchval(WAITING))

        async with one.transaction():
            first = await one.fetchval(asked, account.user_id, random_id())
            counting = other.fetchval(asked, account.user_id, random_id())
            second = asyncio.create_task(counting, name="second")
            await eventually(is_settled, every=0.01)

        assert (first, await second) == (DONE, TOO_MANY)
