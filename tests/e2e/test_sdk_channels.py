"""Channels by the SDK on the real mesh: read by those who have the link, on every device."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e.test_sdk import People, people  # noqa: F401  a fixture
from whimbrel_client import CallFailed, Client
from whimbrel_client.channels.errors import ChannelKeyLacking, ChannelLinkInvalid
from whimbrel_client.channels.model import Post


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
