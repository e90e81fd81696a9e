"""Who may do what to a channel, and what is refused."""

import asyncio
import hashlib
from datetime import timedelta

import pytest

from mesh.caller import Caller
from mesh.errors import PermissionDenied
from mesh.ids import new_ulid, random_id
from svc_message.channels import store
from svc_message.channels.model import (
    ChannelKeyStale,
    ChannelLinkInvalid,
    ChannelUnknown,
    CursorAboveHead,
    PostConflict,
    Role,
    RotateKey,
    SetAdmin,
    SetAttributes,
    SetRetention,
    TooManyAdmins,
    TooManyChannels,
)
from svc_message.groups.model import MemberUnknown
from svc_message.identity.buckets import RateLimited
from svc_message.identity.devices_model import DeviceRevoked


async def test_a_channel_is_made_once_under_a_creation_id(town) -> None:
    ann, ben, *_ = town.people
    id_ = random_id()
    first, again = await town.create(ann, creation_id=id_), await town.create(ann, creation_id=id_)

    assert first.channel_id == again.channel_id
    assert (await town.create(ben, creation_id=id_)).channel_id != first.channel_id
    assert (first.role, first.head_seq, first.oldest_seq) == (Role.OWNER, 0, 1)
    assert [one.channel_id for one in await town.rules.subscriptions(ann)] == [first.channel_id]


async def test_a_post_is_taken_once_and_seqs_have_no_gap(town) -> None:
    ann, *_ = town.people
    channel, id_ = await town.create(ann), random_id()

    posted = await asyncio.gather(
        *(town.post(ann, channel, id_=id_) for _ in range(5)),
        *(town.post(ann, channel, bytes([n])) for n in range(9)),
    )

    assert len(set(posted[:5])) == 1
    assert sorted({seq for seq, _ in posted}) == [*range(1, 11)]
    times = [at for _, at in sorted(posted)]
    assert times == sorted(times)
    with pytest.raises(PostConflict):
        await town.post(ann, channel, b"other words", id_=id_)
    assert await town.seqs(ann, channel) == [*range(1, 11)]


async def test_who_does_not_follow_learns_nothing(town) -> None:
    ann, eve, *_ = town.people
    channel = await town.create(ann)
    await town.post(ann, channel)
    id_, admin = channel.channel_id, SetAdmin(eve.user_id, is_admin=True)

    for attempt in (
        lambda: town.seqs(eve, channel),
        lambda: town.rules.get(eve, id_),
        lambda: town.rules.set_cursor(eve, id_, 1),
        lambda: town.post(eve, channel),
        lambda: town.rules.delete(eve, id_),
        lambda: town.rules.change(eve, id_, admin),
    ):
        with pytest.raises(ChannelUnknown):
            await attempt()


async def test_a_subscriber_only_reads(town) -> None:
    ann, ben, *_ = town.people
    channel = await town.create(ann)
    await town.subscribe(ben, channel)
    id_ = channel.channel_id

    for attempt in (
        lambda: town.post(ben, channel),
        lambda: town.rules.delete(ben, id_),
        lambda: town.rules.change(ben, id_, SetAttributes(b"mine", 1)),
        lambda: town.rules.change(ben, id_, SetAdmin(ben.user_id, is_admin=True)),
        lambda: town.rules.change(ben, id_, RotateKey(bytes(32), b"", b"")),
        lambda: town.rules.change(ben, id_, SetRetention(timedelta(hours=1))),
    ):
        with pytest.raises(PermissionDenied):
            await attempt()
    seen, admins = await town.rules.get(ben, id_)
    assert (seen.role, admins, seen.attributes) == (Role.SUBSCRIBER, [], b"name")


async def test_an_admin_posts_and_names_it_and_no_more(town) -> None:
    ann, ben, cid, _ = town.people
    channel = await town.create(ann)
    id_ = channel.channel_id
    await town.rules.change(ann, id_, SetAdmin(ben.user_id, is_admin=True))
    await town.subscribe(ben, channel)

    assert (await town.post(ben, channel))[0] == 1
    changed = await town.rules.change(ben, id_, SetAttributes(b"other", 1))
    assert (changed.attributes, changed.role) == (b"other", Role.ADMIN)
    assert (await town.rules.get(ben, id_))[1] == [ben.user_id]
    with pytest.raises(PermissionDenied):
        await town.rules.change(ben, id_, SetAdmin(cid.user_id, is_admin=True))

    await town.rules.change(ann, id_, SetAdmin(ben.user_id, is_admin=False))
    with pytest.raises(PermissionDenied):
        await town.post(ben, channel)


async def test_a_key_is_rotated_once_and_the_old_one_ends(town) -> None:
    ann, ben, *_ = town.people
    channel = await town.create(ann)
    old, new = town.link_keys[channel.channel_id], random_id() + random_id()
    rotation = RotateKey(hashlib.sha256(new).digest(), b"anew", b"resealed")

    for _ in range(2):  # the second says the same
        rotated = await town.rules.change(ann, channel.channel_id, rotation)
        assert (rotated.key_version, rotated.attributes) == (2, b"anew")
    for refused in (
        lambda: town.post(ann, channel, version=1),
        lambda: town.post(ann, channel, version=3),
        lambda: town.rules.change(ann, channel.channel_id, SetAttributes(b"old", 1)),
    ):
        with pytest.raises(ChannelKeyStale) as stale:
            await refused()
        assert stale.value.metadata == {"key_version": "2"}
    with pytest.raises(ChannelLinkInvalid):
        await town.rules.subscribe(ben, channel.channel_id, old, b"")
    await town.rules.subscribe(ben, channel.channel_id, new, b"")
    assert [one.sealed_key for one in await town.rules.subscriptions(ann)] == [b"resealed"]


async def test_links_cannot_be_guessed(town) -> None:
    ann, eve, *_ = town.people
    channel = await town.create(ann)

    for channel_id in [channel.channel_id, new_ulid()] * 10:  # the same answer for both
        with pytest.raises(ChannelLinkInvalid):
            await town.rules.subscribe(eve, channel_id, random_id() * 2, b"")
    with pytest.raises(RateLimited):
        await town.subscribe(eve, channel)


async def test_a_cursor_never_goes_back_nor_above_the_head(town) -> None:
    ann, ben, *_ = town.people
    channel = await town.create(ann)
    await town.subscribe(ben, channel)
    for _ in range(3):
        await town.post(ann, channel)
    id_ = channel.channel_id

    assert await town.rules.set_cursor(ben, id_, 2) == 2
    assert await town.rules.set_cursor(ben, id_, 1) == 2
    for above in (4, 2**64 - 1):
        with pytest.raises(CursorAboveHead):
            await town.rules.set_cursor(ben, id_, above)
    [stands] = await town.rules.subscriptions(ben)
    assert stands.cursor == 2


async def test_bounds_of_subscriptions_admins_and_accounts(town, monkeypatch) -> None:
    ann, ben, cid, dan = town.people
    one, other = await town.create(ann), await town.create(ann)
    monkeypatch.setattr(store, "MOST_SUBSCRIPTIONS", 1)
    monkeypatch.setattr(store, "MOST_ADMINS", 1)
    await town.subscribe(ben, one)
    await town.subscribe(ben, one)  # is one still

    with pytest.raises(TooManyChannels):
        await town.subscribe(ben, other)
    await town.rules.change(ann, one.channel_id, SetAdmin(cid.user_id, is_admin=True))
    with pytest.raises(TooManyAdmins):
        await town.rules.change(ann, one.channel_id, SetAdmin(dan.user_id, is_admin=True))
    with pytest.raises(MemberUnknown):
        await town.rules.change(ann, one.channel_id, SetAdmin(new_ulid(), is_admin=True))
    assert (await town.rules.get(ann, one.channel_id))[1] == [cid.user_id]


async def test_too_many_posts_at_once_wait(town) -> None:
    ann, *_ = town.people
    channel = await town.create(ann)

    results = await asyncio.gather(
        *(town.post(ann, channel) for _ in range(80)), return_exceptions=True
    )

    limited = [one for one in results if isinstance(one, RateLimited)]
    assert 0 < len(limited) <= 20
    assert limited[0].retry_after


async def test_an_unlinked_device_does_nothing(town) -> None:
    ann, *_ = town.people
    channel = await town.create(ann)
    gone = Caller(ann.user_id, 1, 0)

    for attempt in (
        lambda: town.post(gone, channel),
        lambda: town.seqs(gone, channel),
        lambda: town.rules.subscriptions(gone),
        lambda: town.create(gone),
        lambda: town.rules.unsubscribe(gone, channel.channel_id),
    ):
        with pytest.raises(DeviceRevoked):
            await attempt()


async def test_subscribers_are_counted_once_each(town) -> None:
    ann, ben, cid, _ = town.people
    channel = await town.create(ann)
    for _ in range(2):
        await town.subscribe(ben, channel)
        await town.subscribe(cid, channel)
    await town.rules.unsubscribe(ben, channel.channel_id)
    await town.rules.unsubscribe(ben, channel.channel_id)
    await town.parts.counts.flush()

    assert (await town.rules.get(ann, channel.channel_id))[0].subscribers == 2
