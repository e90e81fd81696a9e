"""Who finds whom, and that the others learn nothing."""

import asyncio
import hashlib
from datetime import timedelta

import pytest

from mesh.errors import InvalidArgument, Unavailable
from mesh.ids import random_id
from mesh.redis import open_redis
from svc_message.conversations import direct_conversation
from svc_message.identity.buckets import RateLimited
from svc_message.identity.budget import LookUpBudget
from svc_message.identity.finding import Finding
from svc_message.identity.finding_store import FindingStore
from svc_message.identity.model import HandleUnknown
from svc_message.identity.personal import Audience, Privacy

NUMBER = "+4915112345678"
SOMEBODY = b"s" * 16


def hashed(number) -> bytes:
    return hashlib.sha256(number.encode()).digest()


@pytest.fixture
def finding(strict) -> Finding:
    return strict.finding


@pytest.fixture
def sends(in_its_slot):
    """`await sends(alice, bob)`: a chat to which the first has sent, and not the second."""

    async def send(sender, recipient):
        lower, higher = sorted((sender, recipient))
        conversation_id, slot = direct_conversation(sender, recipient)
        await in_its_slot(
            conversation_id,
            "INSERT INTO conversation (conversation_id, slot, lower_user, higher_user, lower_sent,"
            " higher_sent) VALUES ($1, $2, $3, $4, $5, $6)",
            *(slot, lower, higher, int(sender == lower), int(sender == higher)),
            slot=slot,
        )

    return send


@pytest.fixture
async def alice_id(register_by_number, alice) -> bytes:
    return (await register_by_number(alice, "alice", NUMBER)).user_id


async def both_ways(finding, caller) -> list[bool]:
    """Whether alice is found by her handle, by her number, and among contacts."""
    found = []
    for name in ({"handle": "alice"}, {"phone_number": NUMBER}):
        try:
            found.append(bool(await finding.look_up(caller, **name)))
        except HandleUnknown:
            found.append(False)
    return [*found, bool(await finding.discover(caller, [hashed(NUMBER)]))]


async def test_an_account_is_found_by_its_handle_and_by_its_number(finding, alice_id) -> None:
    contacts = [hashed(NUMBER), hashed("+4915100000000"), hashed(NUMBER)]

    assert await finding.look_up(SOMEBODY, handle="alice") == alice_id
    assert await finding.look_up(SOMEBODY, phone_number=NUMBER) == alice_id
    assert await finding.discover(SOMEBODY, contacts) == {hashed(NUMBER): alice_id}


async def test_what_nobody_has_is_unknown(finding, alice_id) -> None:
    for name in ("", "nobody", "ALICE", "alice\0"):
        with pytest.raises(HandleUnknown):
            await finding.look_up(SOMEBODY, handle=name)
    with pytest.raises(HandleUnknown):
        await finding.look_up(SOMEBODY, phone_number="+4915100000000")


async def test_the_owner_chooses_who_finds_the_account(
    strict, finding, alice, alice_id, sends
) -> None:
    contact, stranger, fan = random_id(), random_id(), random_id()
    await sends(alice_id, contact)
    await sends(fan, alice_id)
    own = alice.caller(type("Access", (), {"user_id": alice_id}))
    seen = {}

    for audience in Audience:
        await strict.personal.set_privacy(own, Privacy(by_handle=audience, by_number=audience))
        seen[audience] = [await both_ways(finding, one) for one in (contact, stranger, fan)]
    await strict.personal.set_privacy(own, Privacy(by_number=Audience.EVERYONE))

    assert seen[Audience.EVERYONE] == [[True] * 3] * 3
    assert seen[Audience.CONTACTS] == [[True] * 3, [False] * 3, [False] * 3]
    assert seen[Audience.NOBODY] == [[False] * 3] * 3
    assert await both_ways(finding, stranger) == [False, True, True]
    assert await both_ways(finding, alice_id) == [True] * 3


_LOOKS = "SELECT relname, seq_scan + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables"


class Watched:
    """A shard's connection; it notes each statement, and how often that looks into which table."""

    def __init__(self, connection, noted: list) -> None:
        self._connection, self._noted = connection, noted

    async def fetch(self, statement, *arguments):
        # Counted within a transaction, as nothing else is told of it then.
        async with self._connection.transaction():
            before = dict(await self._connection.fetch(_LOOKS))
            rows = await self._connection.fetch(statement, *arguments)
            after = dict(await self._connection.fetch(_LOOKS))
        looks = {table: count - before.get(table, 0) for table, count in after.items()}
        self._noted.append((statement, {table: n for table, n in looks.items() if n}))
        return rows


async def test_unknown_hidden_and_blocked_are_answered_alike_and_by_the_same_steps(
    strict, finding, alice, alice_id, shards, monkeypatch
) -> None:
    blocked = random_id()
    own = alice.caller(type("Access", (), {"user_id": alice_id}))
    await strict.personal.block(own, blocked)
    steps = []
    on_slot = shards.on_slot

    async def watched(slot, work):
        return await on_slot(slot, lambda connection: work(Watched(connection, steps)))

    monkeypatch.setattr(shards, "on_slot", watched)

    async def looked_up(caller, **name):
        steps.clear()
        with pytest.raises(HandleUnknown) as refusal:
            await finding.look_up(caller, **name)
        error = refusal.value
        return type(error), error.message, error.metadata, error.retry_after, list(steps)

    async def discovered(caller, number):
        steps.clear()
        return await finding.discover(caller, [hashed(number)]), list(steps)

    async def answers(caller, handle="alice", number=NUMBER):
        return [
            await looked_up(caller, handle=handle),
            await looked_up(caller, phone_number=number),
            await discovered(caller, number),
        ]

    unknown = await answers(SOMEBODY, "nobody", "+4915100000000")
    to_blocked = await answers(blocked)
    await strict.personal.set_privacy(own, Privacy(Audience.NOBODY, Audience.NOBODY))
    hidden = await answers(SOMEBODY)
    await strict.personal.set_privacy(own, Privacy(Audience.CONTACTS, Audience.CONTACTS))
    to_strangers = await answers(SOMEBODY)
    await strict.deleting.delete(own)
    deleted = await answers(SOMEBODY)

    assert [to_blocked, hidden, to_strangers, deleted] == [unknown] * 4
    assert [looks for _, looks in unknown[0][-1]] == [
        {"slot": 1, "handle": 1},
        {"slot": 1, "block": 1, "account": 1},
        {"slot": 1, "conversation": 1},
    ]


async def test_a_day_s_budget_is_of_distinct_targets(shards, redis) -> None:
    finding = Finding(FindingStore(shards), LookUpBudget(redis, prefix="b:", most=5))
    numbers = [hashed(f"+49151{number:07}") for number in range(10)]

    assert await finding.discover(SOMEBODY, numbers[:4]) == {}
    for _ in range(3):  # what was asked for before is free
        assert await finding.discover(SOMEBODY, numbers[:4]) == {}
    with pytest.raises(RateLimited) as refusal:
        await finding.discover(SOMEBODY, numbers[3:6])
    with pytest.raises(HandleUnknown):  # nothing of that was spent
        await finding.look_up(SOMEBODY, phone_number="+491510000004")
    for name in ({"handle": "alice"}, {"phone_number": "+491510000005"}):
        with pytest.raises(RateLimited):
            await finding.look_up(SOMEBODY, **name)

    assert timedelta(hours=23) < refusal.value.retry_after <= timedelta(days=1)
    assert await finding.discover(b"o" * 16, numbers[:5]) == {}


async def test_look_ups_at_once_do_not_exceed_the_budget(redis) -> None:
    budget = LookUpBudget(redis, prefix="b:", most=5)
    spent = [budget.spend(SOMEBODY, [bytes([number])]) for number in range(20)]

    outcomes = await asyncio.gather(*spent, return_exceptions=True)

    assert sum(outcome is None for outcome in outcomes) == 5


async def test_without_redis_nobody_is_found() -> None:
    async with open_redis("redis://127.0.0.1:1/0") as away:
        finding = Finding(FindingStore(None), LookUpBudget(away, prefix="b:"))

        with pytest.raises(Unavailable) as refusal:
            await finding.look_up(SOMEBODY, handle="alice")
        with pytest.raises(Unavailable):
            await finding.discover(SOMEBODY, [hashed(NUMBER)])

    assert refusal.value.metadata == {"dependency": "redis"}


async def test_a_handle_and_a_number_at_once_cost_nothing() -> None:
    finding = Finding(FindingStore(None), LookUpBudget(None, prefix="b:"))

    with pytest.raises(InvalidArgument):
        await finding.look_up(SOMEBODY, handle="alice", phone_number=NUMBER)
    assert await finding.discover(SOMEBODY, []) == {}
