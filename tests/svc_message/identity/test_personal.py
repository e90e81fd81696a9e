"""Profile, blocks and silence."""

from datetime import UTC, datetime, timedelta

import pytest

from mesh.caller import Caller
from mesh.errors import InvalidArgument, PermissionDenied
from mesh.ids import random_id
from svc_message.conversations import direct_conversation
from svc_message.identity.devices_model import DeviceRevoked
from svc_message.identity.personal import Audience, Personal, Privacy
from svc_message.identity.personal_store import PersonalStore

READER = Caller(b"r" * 16, 1, 1)


@pytest.fixture
def personal(identity) -> Personal:
    return identity.personal


@pytest.fixture
async def own(accounts, alice) -> Caller:
    return alice.caller(await alice.register(accounts, "alice"))


async def test_a_profile_is_read_by_everybody_but_the_blocked(personal, own) -> None:
    before = await personal.profile_of(own.user_id, READER)
    await personal.set_profile(own, b"sealed")
    blocked = Caller(random_id(), 1, 1)
    await personal.block(own, blocked.user_id)

    assert before == b""
    assert await personal.profile_of(own.user_id, READER) == b"sealed"
    assert await personal.profile_of(own.user_id, blocked) == b""
    assert await personal.profile_of(random_id(), READER) == b""


async def test_a_block_lasts_until_it_is_ended(personal, own, in_its_slot) -> None:
    first, second = sorted((random_id(), random_id()))
    is_blocked = "SELECT is_blocked($1, $2)"

    for user in (second, first, second):
        await personal.block(own, user)
    both = await personal.blocked(own)
    await personal.unblock(own, first)
    await personal.unblock(own, first)

    assert both == [first, second]
    assert await personal.blocked(own) == [second]
    assert await in_its_slot(own.user_id, is_blocked, second) == [(True,)]
    assert await in_its_slot(own.user_id, is_blocked, first) == [(False,)]


async def test_there_is_a_most_of_blocks_and_of_mutes(own, shards) -> None:
    store, until = PersonalStore(shards), datetime.now(UTC) + timedelta(hours=1)
    users = [random_id() for _ in range(3)]

    assert [await store.block(own, user, most=2) for user in users] == [True, True, False]
    assert [await store.mute(own, user, until, most=2) for user in users] == [True, True, False]
    # What is there already needs no place.
    assert await store.block(own, users[0], most=2)
    assert await store.mute(own, users[0], until, most=2)


async def test_a_chat_is_silent_until_then(personal, own, in_its_slot) -> None:
    peer, other = random_id(), random_id()
    until = datetime.now(UTC) + timedelta(hours=8)
    query = "SELECT conversation_id, until FROM mute WHERE user_id = $1"

    await personal.mute(own, peer, until - timedelta(hours=1))
    await personal.mute(own, peer, until)
    await personal.mute(own, other, datetime.now(UTC) + timedelta(hours=1))
    await personal.mute(own, other, None)

    [row] = await in_its_slot(own.user_id, query)
    assert tuple(row) == (direct_conversation(own.user_id, peer)[0], until)


async def test_a_group_is_silent_until_then(personal, own, in_its_slot) -> None:
    group, until = random_id(), datetime.now(UTC) + timedelta(hours=8)
    query = "SELECT conversation_id, until FROM mute WHERE user_id = $1"

    await personal.mute_group(own, group, until)
    [row] = await in_its_slot(own.user_id, query)
    await personal.mute_group(own, group, None)

    assert tuple(row) == (group, until)
    assert await in_its_slot(own.user_id, query) == []


async def test_an_outdated_token_changes_nothing(personal, own, in_its_slot) -> None:
    await in_its_slot(own.user_id, "UPDATE device SET credential_version = 2 WHERE user_id = $1")

    for change in (
        personal.set_profile(own, b"sealed"),
        personal.set_privacy(own, Privacy(by_handle=Audience.NOBODY)),
        personal.block(own, READER.user_id),
        personal.unblock(own, READER.user_id),
        personal.blocked(own),
        personal.mute(own, READER.user_id, None),
    ):
        with pytest.raises(DeviceRevoked):
            await change


async def test_nobody_blocks_themselves() -> None:
    personal = Personal(PersonalStore(None))

    with pytest.raises(InvalidArgument):
        await personal.block(READER, READER.user_id)


async def test_a_linked_device_changes_neither_profile_nor_privacy() -> None:
    personal = Personal(PersonalStore(None))
    linked = Caller(READER.user_id, 2, 1)

    with pytest.raises(PermissionDenied):
        await personal.set_profile(linked, b"sealed")
    with pytest.raises(PermissionDenied):
        await personal.set_privacy(linked, Privacy())
