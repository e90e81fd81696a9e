"""Channels: posts to 1,000 followers who are online, and to ever more who are away."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import grpc

from mesh.ids import slot_of
from mesh.postgres import Connection, Limits, acquired, open_pool
from svc_message.shards.directory import Shards
from whimbrel.channel.v1 import channel_pb2, channel_pb2_grpc
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel_cli.bench.device import Device
from whimbrel_cli.bench.pairs import percentile
from whimbrel_cli.bench.plan import Person, Plan
from whimbrel_cli.bench.telling import Tell, until

AWAY = (0, 100_000, 1_000_000)

_SECONDS = 120.0
_CALL_SECONDS = 30.0
_ACQUIRE = timedelta(seconds=5)
_LIMITS = Limits(statement=timedelta(minutes=5))  # a million rows take their time
_SETTLE = 3.0
_WARM_POSTS = 10
_BETWEEN = 0.05
# Together with the warm ones fewer than a channel may take at once.
_POSTS = 45

_FOLLOW = "INSERT INTO subscription SELECT u, $1, 0, '' FROM unnest($2::bytea[]) AS u"
# Accounts of nobody: a post does not know who they are.
_FOLLOW_MANY = """
INSERT INTO subscription
SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), $1, 0, '' FROM generate_series(1, $2::integer) AS n
"""
# What follows so many rows by itself would count as the posts'.
_SETTLED = ("VACUUM ANALYZE subscription", "CHECKPOINT")


class Follower(Device):
    """A device that counts the posts that it hears."""

    def __init__(self, person: Person, address: str) -> None:
        super().__init__(person, address, payload_bytes=0)
        self.heard = 0

    async def _take(self, frame: gateway_pb2.ConnectResponse, skip: int = 0) -> None:
        kinds = [event.WhichOneof("event") for event in frame.events[skip:]]
        self.heard += kinds.count("channel_post")


async def wide(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """As many posts to each channel: the next one has more followers, all of whom are away."""
    owner, *online = plan.people
    seconds: list[float] = []
    async with _shards(plan) as (shards, connections), _channel_of(plan) as grpc_channel:
        stub: Any = channel_pb2_grpc.ChannelServiceStub(grpc_channel)
        for away in AWAY:
            channel_id = await _make(stub, owner)
            await _follow(shards, connections, channel_id, online, away)
            async with _followers(plan, online) as followers:
                for number in range(_WARM_POSTS + _POSTS):
                    if number == _WARM_POSTS:
                        await _all_heard(followers, number)
                        await tell(f"open {away}")
                    began = time.monotonic()
                    await _post(stub, owner, channel_id, os.urandom(plan.payload_bytes))
                    seconds.append(time.monotonic() - began)
                    await asyncio.sleep(_BETWEEN)
                await _all_heard(followers, _WARM_POSTS + _POSTS)
                await tell(f"close {away}", _POSTS)
    ordered = sorted(seconds)
    return {"p50_ms": percentile(ordered, 50) * 1000, "p99_ms": percentile(ordered, 99) * 1000}


async def _all_heard(followers: Sequence[Follower], posts: int) -> None:
    await until(lambda: all(one.heard == posts for one in followers), within=_SECONDS)


async def _make(stub: Any, owner: Person) -> bytes:
    request = channel_pb2.CreateChannelRequest(
        creation_id=os.urandom(16),
        attributes=b"bench",
        link_key_hash=hashlib.sha256(b"bench").digest(),
    )
    made = await stub.CreateChannel(request, metadata=_token(owner), timeout=_CALL_SECONDS)
    channel_id: bytes = made.channel.channel_id
    return channel_id


async def _post(stub: Any, owner: Person, channel_id: bytes, body: bytes) -> None:
    request = channel_pb2.CreatePostRequest(
        channel_id=channel_id, post_id=os.urandom(16), key_version=1, ciphertext=body
    )
    await stub.CreatePost(request, metadata=_token(owner), timeout=_CALL_SECONDS)


async def _follow(
    shards: Shards,
    connections: Mapping[str, Connection],
    channel_id: bytes,
    online: Sequence[Person],
    away: int,
) -> None:
    """Write the subscriptions where calls would have written them."""
    for name, connection in connections.items():
        here = [p.user_id for p in online if shards.shard_of(slot_of(p.user_id)) == name]
        await connection.execute(_FOLLOW, channel_id, here)
        await connection.execute(_FOLLOW_MANY, channel_id, away // len(connections))
        for statement in _SETTLED:
            await connection.execute(statement)


@contextlib.asynccontextmanager
async def _followers(plan: Plan, people: Sequence[Person]) -> AsyncIterator[list[Follower]]:
    """These people, online at all gateways, which know what they follow."""
    gateways = plan.gateways
    followers = [Follower(one, gateways[n % len(gateways)]) for n, one in enumerate(people)]
    async with asyncio.TaskGroup() as tasks:
        for follower in followers:
            await follower.open()
            tasks.create_task(follower.run(), name="follower")
        await asyncio.sleep(_SETTLE)
        yield followers
        for follower in followers:
            await follower.close()


@contextlib.asynccontextmanager
async def _shards(plan: Plan) -> AsyncIterator[tuple[Shards, Mapping[str, Connection]]]:
    async with contextlib.AsyncExitStack() as stack:
        pools = {}
        for name, dsn in plan.shards.items():
            pool = open_pool(dsn, size=2, application_name="bench", limits=_LIMITS)
            pools[name] = await stack.enter_async_context(pool)
        shards = Shards(pools)
        await shards.read_maps()
        connections = {
            name: await stack.enter_async_context(acquired(pool, within=_ACQUIRE))
            for name, pool in pools.items()
        }
        yield shards, connections


@contextlib.asynccontextmanager
async def _channel_of(plan: Plan) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(plan.gateways[0]) as channel:
        yield channel


def _token(person: Person) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {person.token}"),)
