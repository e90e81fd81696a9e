"""Groups: many messages to many who are online, one that most are away from, and a hot one."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from mesh.postgres import Connection, acquired, open_pool
from whimbrel.group.v1 import group_pb2
from whimbrel_cli.bench.device import Broken
from whimbrel_cli.bench.member import Member, make_group
from whimbrel_cli.bench.pairs import percentile
from whimbrel_cli.bench.plan import Plan
from whimbrel_cli.bench.telling import Tell, until

_SECONDS = 60.0
_AT_ONCE = 50
_WARM_ROUNDS = 3
_ONLINE = 100
_LONE, _TOGETHER = 10, 150
_BETWEEN = 0.1
_POLL = 0.005
_ACQUIRE = timedelta(seconds=5)
_WRITTEN = "SELECT count(*) FROM thread WHERE conversation_id = $1 AND fanned_seq >= $2"


async def crowd(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """Rounds of messages by 50 members at once, each until all others have acked it."""
    async with _online(plan, len(plan.people)) as (_, members):
        for number in range(_WARM_ROUNDS + plan.rounds):
            if number == _WARM_ROUNDS:
                await tell("open", _received(members))
            await _round(members, number + 1)
        await tell("close", _received(members))
    return {"retries": sum(member.retries for member in members)}


async def mass(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """Messages to a group of whom most are away: alone, then so many that fan-out hardly rests."""
    written = []
    async with _online(plan, _ONLINE) as (group, members), _shards(plan) as shards:
        sender = members[0]
        for seq in range(1, _LONE + 1):
            sender.post()
            began = time.monotonic()
            await sender.flush()
            await _written(shards, group, seq, len(plan.people))
            written.append(time.monotonic() - began)
        await tell("open")
        for _ in range(_TOGETHER):
            sender.post()
            await sender.flush()
            await asyncio.sleep(_BETWEEN)
        last, began = _LONE + _TOGETHER, time.monotonic()
        await _written(shards, group, last, len(plan.people))
        behind = time.monotonic() - began
        await until(lambda: all(m.received == last for m in members[1:]), within=_SECONDS)
        await tell("close", _TOGETHER)
    ordered = sorted(sender.accept_seconds[_LONE:])
    return {
        "p50_ms": percentile(ordered, 50) * 1000,
        "p99_ms": percentile(ordered, 99) * 1000,
        "written_s": max(written),
        "behind_s": behind,
        "retries": sender.retries,
    }


async def hot(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """All members of one group send, each the next when one is accepted."""
    is_over = False

    def send_next(member: Member) -> None:
        if not is_over:
            member.post()

    async with _online(plan, len(plan.people)) as (_, members):
        for member in members:
            member.on_posted = send_next
            for _ in range(plan.outstanding):
                member.post()
            await member.flush()
        await asyncio.sleep(plan.warm_up)
        before = [len(member.accept_seconds) for member in members]
        await tell("open", _accepted(members))
        await asyncio.sleep(plan.seconds)
        await tell("close", _accepted(members))
        measured = sorted(
            seconds
            for member, start in zip(members, before, strict=True)
            for seconds in member.accept_seconds[start:]
        )
        is_over = True
        await until(lambda: all(m.accepted == m.posted for m in members), within=_SECONDS)
        total = _accepted(members)
        began = time.monotonic()
        await until(lambda: _received(members) == total * (len(members) - 1), within=_SECONDS)
    return {
        "p50_ms": percentile(measured, 50) * 1000,
        "p99_ms": percentile(measured, 99) * 1000,
        "behind_s": time.monotonic() - began,
        "retries": sum(member.retries for member in members),
    }


async def _round(members: Sequence[Member], number: int) -> None:
    senders = members[:_AT_ONCE]
    for sender in senders:
        sender.post()
    for sender in senders:
        await sender.flush()
    others = len(members) - 1

    def is_done() -> bool:
        return all(
            len(sender.delivered) == number and min(sender.delivered.values()) == others
            for sender in senders
        )

    await until(is_done, within=_SECONDS)
    for place, member in enumerate(members):
        expected = number * (_AT_ONCE - (place < _AT_ONCE))
        if member.received != expected:
            raise Broken(f"{expected} were sent and {member.received} received")


@contextlib.asynccontextmanager
async def _online(plan: Plan, count: int) -> AsyncIterator[tuple[group_pb2.Group, list[Member]]]:
    """The group of all people, of whom the first `count` are online."""
    group = await make_group(plan.gateways[0], plan.people)
    members = [
        Member(person, plan.gateways[n % len(plan.gateways)], payload_bytes=plan.payload_bytes)
        for n, person in enumerate(plan.people[:count])
    ]
    async with asyncio.TaskGroup() as tasks:
        for member in members:
            member.join(group)
            await member.open()
            tasks.create_task(member.run(), name="member")
        yield group, members
        for member in members:
            await member.close()


@contextlib.asynccontextmanager
async def _shards(plan: Plan) -> AsyncIterator[list[Connection]]:
    async with contextlib.AsyncExitStack() as stack:
        connections = []
        for dsn in plan.shards.values():
            pool = await stack.enter_async_context(open_pool(dsn, size=1, application_name="bench"))
            connections.append(await stack.enter_async_context(acquired(pool, within=_ACQUIRE)))
        yield connections


async def _written(
    shards: Sequence[Connection], group: group_pb2.Group, seq: int, members: int
) -> None:
    """Return when the queues of all members have the message."""
    async with asyncio.timeout(_SECONDS):
        while True:
            have = [await shard.fetchval(_WRITTEN, group.group_id, seq) for shard in shards]
            if sum(have) >= members:
                return
            await asyncio.sleep(_POLL)


def _received(members: Sequence[Member]) -> int:
    return sum(member.received for member in members)


def _accepted(members: Sequence[Member]) -> int:
    return sum(member.accepted for member in members)
