"""Who may see whose presence: each lets the other, and neither has blocked the other."""

import itertools

import pytest

from mesh.ids import random_id, slot_of
from svc_message.conversations import direct_conversation
from svc_message.identity.personal import Audience, LastSeen, Privacy
from svc_message.identity.visibility import Visibility
from svc_message.identity.visibility_store import VisibilityStore


@pytest.fixture
def visibility(shards) -> Visibility:
    return Visibility(VisibilityStore(shards))


@pytest.fixture
async def people(accounts, alice, mallory):
    """Two people, as callers."""
    return (
        alice.caller(await alice.register(accounts, "alice")),
        mallory.caller(await mallory.register(accounts, "mallory")),
    )


async def sent(shards, sender, peer) -> None:
    """Let it be so that the one has sent to the other."""
    id_, slot = direct_conversation(sender, peer)
    lower, higher = sorted((sender, peer))
    column = "lower_sent" if sender == lower else "higher_sent"
    await shards.pool(shards.shard_of(slot)).execute(
        f"INSERT INTO conversation (conversation_id, slot, lower_user, higher_user, {column}) "
        "VALUES ($1, $2, $3, $4, 1)",
        *(id_, slot, lower, higher),
    )


async def test_presence_is_seen_where_each_lets_the_other(identity, visibility, people) -> None:
    one, other = people
    seen = {}

    for choices in itertools.product(
        (Audience.EVERYONE, Audience.CONTACTS, Audience.NOBODY), repeat=2
    ):
        for caller, choice in zip(people, choices, strict=True):
            await identity.personal.set_privacy(caller, Privacy(presence=choice))
        there, back = await visibility.terms(
            [(one.user_id, other.user_id), (other.user_id, one.user_id)]
        )
        assert there.is_visible == back.is_visible
        assert there.is_unblocked
        seen[choices] = there.is_visible

    # They are no contacts: nobody has ever sent.
    assert [choices for choices, is_seen in seen.items() if is_seen] == [(1, 1)]


async def test_contacts_are_those_to_whom_the_owner_has_sent(
    identity, visibility, people, shards
) -> None:
    one, other = people
    await identity.personal.set_privacy(one, Privacy(presence=Audience.CONTACTS))
    viewing = [(one.user_id, other.user_id)]
    before = await visibility.terms(viewing)

    await sent(shards, one.user_id, other.user_id)

    assert [before[0].is_visible, (await visibility.terms(viewing))[0].is_visible] == [False, True]
    # That the other has sent nothing matters only once it asks for contacts, too.
    await identity.personal.set_privacy(other, Privacy(presence=Audience.CONTACTS))
    assert not (await visibility.terms(viewing))[0].is_visible


@pytest.mark.parametrize("blocker", [0, 1])
async def test_a_block_hides_each_from_the_other(identity, visibility, people, blocker) -> None:
    await identity.personal.block(people[blocker], people[1 - blocker].user_id)

    terms = await visibility.terms(
        [(people[0].user_id, people[1].user_id), (people[1].user_id, people[0].user_id)]
    )

    assert [(one.is_visible, one.is_unblocked) for one in terms] == [(False, False)] * 2


async def test_who_does_not_exist_is_answered_like_who_has_blocked(visibility, people) -> None:
    [terms] = await visibility.terms([(random_id(), people[0].user_id)])

    assert (terms.is_visible, terms.is_unblocked) == (False, False)


async def test_last_seen_is_as_exact_as_its_owner_chooses(identity, visibility, people) -> None:
    viewing = [(people[0].user_id, people[1].user_id)]
    spans = [(await visibility.terms(viewing))[0].last_seen_seconds]
    for choice in (LastSeen.HOUR, LastSeen.DAY, LastSeen.MINUTE):
        await identity.personal.set_privacy(people[0], Privacy(last_seen=choice))
        spans.append((await visibility.terms(viewing))[0].last_seen_seconds)

    assert spans == [60, 3600, 86400, 60]


async def test_members_are_those_who_have_not_left(visibility, shards) -> None:
    group, member, former = random_id(), random_id(), random_id()
    pool = shards.pool(shards.shard_of(slot_of(group)))
    for user, left in ((member, None), (former, 7)):
        await pool.execute("INSERT INTO member VALUES ($1, $2, 1, 0, $3, 0, 1)", group, user, left)

    asked = [(group, member), (group, former), (group, random_id()), (random_id(), member)]
    assert await visibility.memberships(asked) == [True, False, False, False]
