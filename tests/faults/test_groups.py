"""Fan-out under fault: each member at a seq gets the message, nobody else, all in one order."""

import asyncio

import pytest

from mesh.ids import SLOTS, slot_of
from svc_message.shards.moving import move_slot
from tests.e2e.device import name_of
from tests.e2e.meshes import own_mesh
from tests.faults.breaking import died, dying_at, kill, works_for
from tests.faults.crowd import Crowd, a_crowd, check, queues_of, waiting_on
from tests.faults.town import eventually
from whimbrel_cli.stack.mesh import Mesh

POINTS = [
    ("accept_group.before_commit", 4),
    ("accept_group.after_commit", 4),
    ("fan_out.before_chunk", 2),
    ("fan_out.before_chunk", 3),
    ("fan_out.chunk_written", 1),
    ("fan_out.chunk_written", 2),
    ("fan_out.chunk_written", 3),
    ("fan_out.before_settle", 3),
]
CHANGES_PER_SECOND = 50


@pytest.mark.parametrize(("point", "count"), POINTS)
async def test_a_worker_that_dies_leaves_nobody_out_and_lets_nobody_in(
    mesh: Mesh, point: str, count: int
) -> None:
    async with dying_at(mesh, "message-1", point, count=count):
        crowds = await crowds_of(mesh, "message-1")

        changes = await live(crowds, messages=25)
        await died(mesh, "message-1")

        assert changes > 0
        await check(mesh, *crowds)


async def crowds_of(mesh: Mesh, name: str) -> list[Crowd]:
    """Three groups or more, until one of them falls to the instance, whatever its id is now."""
    is_its = await works_for(mesh, name)
    crowds: list[Crowd] = []
    while len(crowds) < 3 or not any(is_its(slot_of(crowd.group.group_id)) for crowd in crowds):
        crowds.append(await a_crowd(mesh, members=20, strangers=10, seed=len(crowds)))
    return crowds


async def test_a_shard_that_is_away_for_a_while_stops_nobody_else_and_misses_nothing() -> None:
    env = {"WHIMBREL_MESSAGE_MOST_GROUP_ENTRIES": "30"}
    async with own_mesh(clusters=2, env=env) as mesh:
        crowd = await crowd_at_home_on_shard_0(mesh)
        await crowd.write(5)
        await kill(mesh, "postgres-2")

        # Accepted while a shard is away, and written for those who are not on it.
        await crowd.write(20)
        assert crowd.refusals == []
        await eventually(lambda: has_all(crowd, on="shard-0"))
        # Then the outbox is full, and says so.
        writing = asyncio.create_task(crowd.write(600))
        await eventually(lambda: len(crowd.refusals) > 1)
        assert {name_of(refused.reason) for refused in crowd.refusals} == {"OVERLOADED"}
        assert 30 <= await waiting_on(mesh, "shard-0") < 600
        await mesh.start("postgres-2")
        await writing

        await check(mesh, crowd)


async def crowd_at_home_on_shard_0(mesh: Mesh) -> Crowd:
    """A group whose own rows are on the first shard, and its members on both."""
    for seed in range(50):
        crowd = await a_crowd(mesh, members=30, strangers=0, seed=seed)
        if slot_of(crowd.group.group_id) < SLOTS // 2:
            return crowd
    raise AssertionError("no group of fifty is at home there")


async def has_all(crowd: Crowd, *, on: str) -> bool:
    """Whether those members who are on the shard have every message."""
    queues = await queues_of(crowd, on)
    expected = crowd.expected()
    return bool(queues) and all(queue == expected[user] for user, queue in queues.items())


async def live(crowds: list[Crowd], *, messages: int) -> int:
    """Let all groups be written to and changed at once; how many changes there were."""
    written = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        churning = [
            tasks.create_task(crowd.churn(written.is_set, every=len(crowds) / CHANGES_PER_SECOND))
            for crowd in crowds
        ]
        writing = [tasks.create_task(crowd.write(messages)) for crowd in crowds]
        await asyncio.wait(writing)
        written.set()
    return sum(task.result() for task in churning)


async def test_slots_of_a_group_and_its_members_move_and_nobody_can_tell(mesh: Mesh) -> None:
    crowd = await a_crowd(mesh, members=20, strangers=6, seed=1)
    slots = [slot_of(crowd.group.group_id), *(slot_of(user_id) for user_id in crowd.others[:3])]
    is_over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        churning = tasks.create_task(crowd.churn(is_over.is_set, every=0.05))
        writing = tasks.create_task(crowd.write(150))
        for slot in slots * 2:  # there and back
            for target in mesh.shards:
                await move_slot(mesh.shards, slot, target)
        await writing
        is_over.set()

    assert churning.result() > 0
    assert {name_of(refused.reason) for refused in crowd.refusals} <= {"SLOT_MOVING"}
    await check(mesh, crowd)
