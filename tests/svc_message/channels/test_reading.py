"""Pages of channels: right after posts and their end, and cheap for a crowd."""

import asyncio
from datetime import timedelta

import pytest

from mesh.ids import random_id, slot_of
from svc_message.channels import store
from svc_message.channels.model import PAGE_BYTES, ChannelUnknown, SetRetention, Standing
from svc_message.channels.timeline import Timelines
from tests.svc_message.channels.conftest import Gateway


class Counted:
    """A store that counts what is read."""

    def __init__(self, behind) -> None:
        self._behind = behind
        self.standings = self.reads = 0

    async def standing(self, channel_id) -> Standing:
        self.standings += 1
        return await self._behind.standing(channel_id)

    async def posts(self, channel_id, first, last):
        self.reads += 1
        return await self._behind.posts(channel_id, first, last)


async def test_a_thousand_readers_cost_a_few_reads(town) -> None:
    ann, *_ = town.people
    channel = await town.create(ann)
    for _ in range(20):
        await town.post(ann, channel)
    counted = Counted(town.parts.store)
    timelines = Timelines(counted)

    pages = await asyncio.gather(
        *(timelines.page(channel.channel_id, reader % 20) for reader in range(1_000))
    )

    assert all(page.posts[-1].seq == page.standing.head_seq == 20 for page in pages)
    assert {page.posts[0].seq for page in pages} == {*range(1, 21)}
    assert (counted.standings, counted.reads) == (1, 1)


async def test_a_reader_who_was_rung_finds_the_post(town) -> None:
    ann, *_ = town.people
    channel = await town.create(ann)
    timelines = Timelines(town.parts.store)
    crowd = [asyncio.create_task(_endless(timelines, channel.channel_id)) for _ in range(20)]

    for _ in range(20):
        seq, _ = await town.post(ann, channel)
        page = await timelines.page(channel.channel_id, seq - 1)
        assert [post.seq for post in page.posts] == [seq]

    for reader in crowd:
        reader.cancel()


async def _endless(timelines, channel_id) -> None:
    while True:
        await timelines.page(channel_id, 0)


async def test_pages_are_bounded_by_count_and_bytes(town) -> None:
    ann, *_ = town.people
    channel = await town.create(ann)
    body = bytes(60 * 1024)
    for _ in range(20):
        await town.post(ann, channel, body)

    for after, limit, seqs in ((0, 3, [1, 2, 3]), (18, 100, [19, 20]), (20, 100, []), (99, 9, [])):
        assert await town.seqs(ann, channel, after, limit) == seqs
    page = await town.rules.posts(ann, channel.channel_id, 0, 100)
    assert PAGE_BYTES <= sum(len(post.ciphertext) for post in page.posts) < PAGE_BYTES + 64 * 1024


async def test_what_is_kept_in_memory_is_bounded(town) -> None:
    ann, *_ = town.people
    timelines = Timelines(town.parts.store, most_bytes=100_000)
    for _ in range(4):
        channel = await town.create(ann)
        await town.post(ann, channel, bytes(40_000))
        assert (await timelines.page(channel.channel_id, 0)).posts[0].seq == 1

    assert timelines._size == sum(tail.size for tail in timelines._tails.values())
    assert 0 < timelines._size <= 100_000


async def test_posts_end_with_their_time_and_are_swept(town) -> None:
    ann, *_ = town.people
    channel = await town.create(ann)
    for _ in range(3):
        await town.post(ann, channel)
    assert await town.seqs(ann, channel) == [1, 2, 3]  # and are in memory now
    await _on_shard(
        town,
        channel,
        "UPDATE channel_post SET posted_at = posted_at - interval '2 hours'"
        " WHERE channel_id = $1 AND seq < 3",
    )

    await town.rules.change(ann, channel.channel_id, SetRetention(timedelta(hours=1)))

    page = await town.rules.posts(ann, channel.channel_id, 0, 100)
    assert [post.seq for post in page.posts] == [3]
    assert page.standing == Standing(head_seq=3, oldest_seq=3)
    await town.parts.sweep()
    assert await _kept(town, channel) == 1
    seq, _ = await town.post(ann, channel)
    assert seq == 4


async def test_only_the_latest_posts_stay(town, monkeypatch) -> None:
    ann, *_ = town.people
    channel = await town.create(ann)
    monkeypatch.setattr(store, "MOST_POSTS", 3)
    for _ in range(5):
        await town.post(ann, channel)

    assert await town.seqs(ann, channel) == [3, 4, 5]


async def test_a_deleted_channel_is_gone_with_its_posts(town) -> None:
    ann, ben, *_ = town.people
    id_ = random_id()
    channel = await town.create(ann, creation_id=id_)
    await town.subscribe(ben, channel)
    await town.post(ann, channel)
    await town.seqs(ben, channel)

    await town.rules.delete(ann, channel.channel_id)
    await town.parts.sweep()

    for attempt in (
        lambda: town.seqs(ben, channel),
        lambda: town.post(ann, channel),
        lambda: town.create(ann, creation_id=id_),
    ):
        with pytest.raises(ChannelUnknown):
            await attempt()
    assert await _kept(town, channel) == 0
    assert [one.channel_id for one in await town.rules.subscriptions(ben)] == [channel.channel_id]


async def test_a_post_is_one_push_to_each_gateway(town) -> None:
    ann, ben, *_ = town.people
    channel = await town.create(ann)
    await town.subscribe(ben, channel)
    gateways = [Gateway("one"), Gateway("two")]
    for gateway in gateways:
        town.router.attach(gateway)

    seq, at = await town.post(ann, channel)

    for gateway in gateways:
        [pushed] = gateway.posts
        assert (pushed.seq, pushed.posted_at, pushed.ciphertext) == (seq, at, b"words")


async def _kept(town, channel) -> int:
    pool = town.shards.pool(town.shards.shard_of(slot_of(channel.channel_id)))
    query = "SELECT count(*) FROM channel_post WHERE channel_id = $1"
    return await pool.fetchval(query, channel.channel_id)


async def _on_shard(town, channel, query) -> None:
    pool = town.shards.pool(town.shards.shard_of(slot_of(channel.channel_id)))
    await pool.execute(query, channel.channel_id)
