"""Slots move between shards in the middle of traffic, and no client can tell."""

import asyncio

import asyncpg

from mesh.ids import slot_of
from svc_message.shards.moving import move_slot
from tests.faults.history import Refused
from tests.faults.phone import Phone
from tests.faults.town import Town, a_town, eventually
from whimbrel_cli.stack.mesh import Mesh

FREEZE = "UPDATE slot SET state = 2 WHERE slot = $1 AND state = 1"
ROWS = """
SELECT (SELECT count(*) FROM device WHERE slot_of(user_id) = $1)
    + (SELECT count(*) FROM device_queue WHERE slot_of(user_id) = $1)
    + (SELECT count(*) FROM conversation WHERE slot = $1)
    + (SELECT count(*) FROM copy_outbox WHERE slot = $1)
"""
OF_A_MOVE = {"SLOT_MOVING", "PREVIOUS_NOT_ACCEPTED"}


async def owner_of(mesh: Mesh, slot: int) -> str:
    for shard, dsn in mesh.shards.items():
        connection = await asyncpg.connect(dsn)
        try:
            if await connection.fetchval("SELECT state FROM slot WHERE slot = $1", slot) in (1, 2):
                return shard
        finally:
            await connection.close()
    raise AssertionError(f"no shard owns slot {slot}")


async def move_away(mesh: Mesh, person: Phone) -> None:
    """Bring a person's rows, and the conversations that live with them, to the other shard."""
    slot = slot_of(person.user_id)
    source = await owner_of(mesh, slot)
    (target,) = mesh.shards.keys() - {source}
    assert await move_slot(mesh.shards, slot, target)
    connection = await asyncpg.connect(mesh.shards[source])
    try:
        assert await connection.fetchval(ROWS, slot) == 0
    finally:
        await connection.close()


def refusals(town: Town) -> set[str]:
    return {refused.reason for refused in town.history.all(Refused)}


async def test_slots_that_move_under_load_lose_nothing(mesh: Mesh) -> None:
    async with a_town(mesh) as town:
        for round_, person in enumerate(town.people):
            town.write(80)
            await town.has_accepted(80 * round_ + 10)
            await move_away(mesh, person)

        await town.settled()

    assert refusals(town) <= OF_A_MOVE
    await town.check()


async def test_a_slot_that_moves_there_and_back_loses_nothing(mesh: Mesh) -> None:
    async with a_town(mesh, people=3) as town:
        for round_ in range(4):
            town.write(80)
            await town.has_accepted(80 * round_ + 10)
            await move_away(mesh, town.people[0])

        await town.settled()

    assert refusals(town) <= OF_A_MOVE
    await town.check()


async def test_a_slot_frozen_by_hand_for_long_refuses_for_now_and_goes_on_where_it_is_moved_to(
    mesh: Mesh,
) -> None:
    async with a_town(mesh) as town:
        person = town.people[0]
        slot = slot_of(person.user_id)
        town.write(100)
        await town.has_accepted(20)
        source = await owner_of(mesh, slot)
        await freeze(mesh.shards[source], slot)
        for other in town.people[1:]:
            town.write_one(other, person)
            town.write_one(person, other)
        await eventually(lambda: "SLOT_MOVING" in refusals(town))

        await move_away(mesh, person)
        town.write(100)
        await town.settled()

    assert refusals(town) <= OF_A_MOVE
    await town.check()


async def freeze(dsn: str, slot: int) -> None:
    """Wait out everybody who has read the slot's row, then let nobody pass who reads it later."""
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(10), connection.transaction():
            await connection.execute("LOCK TABLE slot IN ACCESS EXCLUSIVE MODE")
            assert await connection.execute(FREEZE, slot) == "UPDATE 1"
    finally:
        await connection.close()
