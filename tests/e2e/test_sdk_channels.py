"""Channels by the SDK on the real mesh: read by those who have the link, on every device."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e.shards import on_each_shard
from tests.e2e.test_sdk import People, people  # noqa: F401  a fixture
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import CallFailed, Client
from whimbrel_client.channels.errors import (
    ChannelKeyLacking,
    ChannelLinkInvalid,
    ChannelUnknown,
)
from whimbrel_client.channels.model import ChannelRole, Post


async def test_a_channel_is_read_by_whoever_has_its_link(people: People) -> None:  # noqa: F811
    (ann, _), (ben, _) = await people.register(), await people.register()
    async with Client.connect(ann) as alice, Client.connect(ben) as bob:
        channel = await alice.channels.create("Shorebirds", "what was seen")
        await alice.channels.post(channel.channel_id, "before you came")

        followed = await bob.channels.subscribe(await alice.channels.link(channel.channel_id))
        assert (followed.name, followed.description) == ("Shorebirds", "what was seen")
        await alice.channels.post(channel.channel_id, "a whimbrel")

        posts = await _first(bob, 2)
        await bob.channels.mark_read(channel.channel_id, 2)
        [stands] = await bob.channels.followed()
        assert [post.text for post in posts] == ["before you came", "a whimbrel"]
        assert (stands.read_up_to, stands.last_seq) == (2, 2)
        with pytest.raises(CallFailed) as refused:
            await bob.channels.post(channel.channel_id, "me too")
        assert refused.value.reason == "CALLER_NOT_ALLOWED"

    async with Client.connect(ann) as alice:  # while he is away
        await alice.channels.post(channel.channel_id, "gone south")
    async with Client.connect(ben) as bob:
        assert (await _first(bob, 3))[-1].text == "gone south"


async def test_another_key_ends_the_old_link(people: People) -> None:  # noqa: F811
    (ann, _), (ben, _) = await people.register(), await people.register()
    async with Client.connect(ann) as alice, Client.connect(ben) as bob:
        channel = await alice.channels.create("Nests")
        old = await alice.channels.link(channel.channel_id)
        await bob.channels.subscribe(old)

        new = await alice.channels.rotate_key(channel.channel_id)
        seq = await alice.channels.post(channel.channel_id, "for the few")
        assert (await _first(bob, 1))[0].content is None
        await bob.channels.followed()
        with pytest.raises(ChannelKeyLacking):
            await bob.channels.link(channel.channel_id)
        with pytest.raises(ChannelLinkInvalid):
            await bob.channels.subscribe(old)

        await bob.channels.subscribe(new)
        assert (await _first(bob, 1))[0].text == "for the few"
        assert seq == 1


async def test_an_admin_posts_and_names_the_channel_until_that_is_taken_back(
    people: People,  # noqa: F811
) -> None:
    (ann, _), (ben, _) = await people.register(), await people.register()
    async with Client.connect(ann) as alice, Client.connect(ben) as bob:
        channel_id = (await alice.channels.create("Nests")).channel_id
        await bob.channels.subscribe(await alice.channels.link(channel_id))

        await alice.channels.add_admin(channel_id, bob.user_id)
        await bob.channels.post(channel_id, "three eggs")
        await bob.channels.rename(channel_id, "Nests and eggs", "who breeds where")
        [as_admin] = await bob.channels.followed()
        with pytest.raises(CallFailed, match="CALLER_NOT_ALLOWED"):
            await bob.channels.set_retention(channel_id, timedelta(hours=1))
        await alice.channels.remove_admin(channel_id, bob.user_id)
        with pytest.raises(CallFailed, match="CALLER_NOT_ALLOWED"):
            await bob.channels.post(channel_id, "four")
        [seen] = await alice.channels.followed()

        assert as_admin.role is ChannelRole.ADMIN
        assert (seen.name, seen.description) == ("Nests and eggs", "who breeds where")
        assert [post.text for post in await alice.channels.stored(channel_id)] == ["three eggs"]


async def test_posts_are_kept_as_long_as_the_owner_says_and_a_channel_ends_for_all(
    people: People,  # noqa: F811
    mesh: Mesh,
) -> None:
    (ann, _), (ben, _) = await people.register(), await people.register()
    kept = "SELECT retention FROM channel WHERE channel_id = $1"
    async with Client.connect(ann) as alice, Client.connect(ben) as bob:
        channel_id = (await alice.channels.create("Tides", retention=timedelta(days=7))).channel_id
        await bob.channels.subscribe(await alice.channels.link(channel_id))
        [at_first] = await on_each_shard(mesh, kept, channel_id)

        await alice.channels.set_retention(channel_id, timedelta(hours=1))
        [then] = await on_each_shard(mesh, kept, channel_id)
        for other in (timedelta(minutes=59), timedelta(days=91)):
            with pytest.raises(CallFailed, match="FIELD_INVALID"):
                await alice.channels.set_retention(channel_id, other)
        await alice.channels.delete(channel_id)

        assert (at_first["retention"], then["retention"]) == (timedelta(7), timedelta(hours=1))
        assert await alice.channels.followed() == await bob.channels.followed() == []
        with pytest.raises(ChannelUnknown):
            await alice.channels.known(channel_id)


async def _first(client: Client, count: int) -> list[Post]:
    """The first posts, once they are there."""
    posts = []
    async with asyncio.timeout(10):
        async for post in client.channels.posts():
            posts.append(post)
            if len(posts) == count:
                break
    return posts


async def test_all_devices_of_an_account_follow(people: People, tmp_path: Path) -> None:  # noqa: F811
    (ann, _), (ben, _) = await people.register(), await people.register()
    shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with Client.connect(ann) as alice, Client.connect(ben) as bob:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(
                Client.link(tmp_path / "laptop", gateways=people._gateways, show=shown.set_result)
            )
            await bob.link_device(await shown, history=timedelta())
        channel = await alice.channels.create("Tides")
        async with Client.connect(tmp_path / "laptop") as laptop:
            await laptop.online()
            await bob.channels.subscribe(await alice.channels.link(channel.channel_id))
            await alice.channels.post(channel.channel_id, "high at noon")

            assert [post.text for post in await _first(laptop, 1)] == ["high at noon"]
            await bob.channels.mark_read(channel.channel_id, 1)
            [seen] = await laptop.channels.followed()
            assert (seen.name, seen.read_up_to) == ("Tides", 1)
            await laptop.channels.unsubscribe(channel.channel_id)
        assert await bob.channels.followed() == []
