"""Channels over two migrated shards, by their rules, with a router that nobody is attached to."""

import hashlib
from dataclasses import dataclass, field

import pytest

from mesh.caller import Caller
from mesh.ids import random_id
from mesh.redis import open_redis
from svc_message.channels.channels import ChannelRules
from svc_message.channels.model import RETENTION, Channel
from svc_message.channels.timeline import Timelines
from svc_message.channels.wiring import ChannelParts, build_channels
from svc_message.groups.store import GroupStore
from svc_message.identity.buckets import Buckets
from svc_message.routing import Router


class Nowhere:
    """A registry without a session."""

    async def routes(self, devices):
        return {}


class Gateway:
    """An attached gateway that keeps what is pushed to it."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.posts = []

    def push_post(self, post) -> None:
        self.posts.append(post)


@dataclass
class Town:
    """The rules, what is behind them, and people."""

    rules: ChannelRules
    parts: ChannelParts
    router: Router
    shards: object
    people: list[Caller]
    link_keys: dict[bytes, bytes] = field(default_factory=dict)

    async def create(self, owner: Caller, *, creation_id: bytes = b"") -> Channel:
        link_key = random_id() + random_id()
        channel = await self.rules.create(
            owner,
            creation_id or random_id(),
            b"name",
            RETENTION,
            link_hash=hashlib.sha256(link_key).digest(),
            sealed_key=b"sealed",
        )
        self.link_keys[channel.channel_id] = link_key
        return channel

    async def subscribe(self, caller: Caller, channel: Channel) -> Channel:
        key = self.link_keys[channel.channel_id]
        return await self.rules.subscribe(caller, channel.channel_id, key, b"sealed")

    async def post(self, author: Caller, channel: Channel, body=b"words", *, id_=b"", version=1):
        return await self.rules.post(author, channel.channel_id, id_ or random_id(), version, body)

    async def seqs(self, reader: Caller, channel: Channel, after=0, limit=100) -> list[int]:
        page = await self.rules.posts(reader, channel.channel_id, after, limit)
        return [post.seq for post in page.posts]


@pytest.fixture
async def town(shards, bulk_accounts, redis_url):
    """Four people and no channel yet."""
    async with open_redis(redis_url) as redis:
        router = Router(Nowhere())
        parts = build_channels(shards, router)
        rules = ChannelRules(
            parts.store,
            GroupStore(shards),
            Buckets(redis, prefix=f"test:{random_id().hex()}:"),
            Timelines(parts.store),
            counts=parts.counts,
            news=parts.news,
        )
        people = [Caller(one.user_id, 1, 1) for one in await bulk_accounts(4)]
        yield Town(rules, parts, router, shards, people)
