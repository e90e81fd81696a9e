"""A retry finds its first answer for seven days, whatever was swept meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest

from svc_message.model import Outcome, Refusal
from svc_message.sending import read_send
from svc_message.store import ShardStore
from tests.e2e.device import a_send

# The shards of svc_message's own tests: two databases, migrated, and accounts in bulk.
from tests.svc_message.conftest import (  # noqa: F401
    bulk_accounts,
    session_variables,
    shard_dsns,
    shard_templates,
    shards,
)

DAY = timedelta(days=1)


@pytest.fixture
async def pair(bulk_accounts):  # noqa: F811
    return [account.user_id for account in await bulk_accounts(2)]


async def accept(shards, send, sender, now):  # noqa: F811
    """Accept the send as an instance does whose clock says `now`."""
    request = read_send(send, sender, 1, now, None)
    if isinstance(request, Refusal):
        return request
    request.recipient_known = True
    shard = shards.shard_of(request.slot)
    (result,) = await ShardStore(shard, shards.pool(shard)).accept([request])
    return result


@pytest.mark.parametrize("days", [0, 1, 6, 7])
async def test_a_retry_gets_the_first_answer_days_later(shards, pair, days):  # noqa: F811
    sender, recipient = pair
    now = datetime.now(UTC)
    first_tried = now - days * DAY + timedelta(minutes=1)
    send = a_send(recipient, tried=first_tried.timestamp())

    first = await accept(shards, send, sender, first_tried)
    for shard in shards.names:
        await ShardStore(shard, shards.pool(shard)).empty_old_dedup()
    again = await accept(shards, send, sender, now)

    assert (first.outcome, again.outcome) == (Outcome.DONE, Outcome.REPEATED)
    assert (again.seq, again.message_id, again.accepted_at) == (
        first.seq,
        first.message_id,
        first.accepted_at,
    )


async def test_a_retry_after_more_than_seven_days_is_refused_for_good(shards, pair):  # noqa: F811
    sender, recipient = pair
    now = datetime.now(UTC)
    first_tried = now - 7 * DAY - timedelta(minutes=1)
    send = a_send(recipient, tried=first_tried.timestamp())

    await accept(shards, send, sender, first_tried)
    again = await accept(shards, send, sender, now)

    assert again.reason == "RETRY_TOO_OLD"
    assert again.retry_after is None
