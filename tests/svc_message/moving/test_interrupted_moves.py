"""Moves that are killed or fail at each step, and what the next one makes of them."""

import json
import subprocess
import sys

import asyncpg
import pytest

from svc_message.model import Outcome
from svc_message.shards.moving import move_slot

OWNED, FROZEN, INCOMING, MOVED = 1, 2, 3, 4

BEFORE_THE_TURN = ("frozen", "incoming", "copied", "compared")
AFTER_THE_TURN = ("source moved", "target owned", "others told", "removed")

_MOVER = """
import asyncio, json, sys
from mesh.failpoints import Failpoints
from svc_message.shards.moving import move_slot
dsns, slot, to, step = json.loads(sys.argv[1])
asyncio.run(move_slot(dsns, slot, to, on_step=Failpoints(step).hit))
"""


class Failure(Exception):
    """What an interrupted move ends with."""


def _move_and_die(world, step) -> None:
    arguments = json.dumps([world.dsns, world.slot, world.target, step])
    mover = subprocess.run([sys.executable, "-c", _MOVER, arguments], check=False, timeout=60)
    assert mover.returncode == -9


async def _until_the_dead_one_s_lock_is_free(world) -> None:
    # Postgres may notice a moment later that its client is dead.
    for name in world.dsns:
        connection = await asyncpg.connect(world.dsns[name])
        await connection.execute(
            "SELECT pg_advisory_lock(hashtext('whimbrel slot'), $1)", world.slot
        )
        await connection.close()


def _owners(slot_rows) -> list[str]:
    return [name for name, (state, _, _) in slot_rows.items() if state == OWNED]


async def _rewrite(world) -> None:
    [owner] = _owners(await world.slot_rows())
    result = await world.send(world.hero, world.peers[0], shard=owner)
    assert result.outcome == Outcome.DONE


@pytest.mark.parametrize("step", BEFORE_THE_TURN + AFTER_THE_TURN)
async def test_a_move_that_was_killed_is_finished_by_the_next(world, step) -> None:
    before = await world.rows(world.source)

    _move_and_die(world, step)
    await _until_the_dead_one_s_lock_is_free(world)
    owners = _owners(await world.slot_rows())
    await move_slot(world.dsns, world.slot, world.target)

    assert len(owners) <= 1
    assert _owners(await world.slot_rows()) == [world.target]
    assert (await world.slot_rows())[world.source][:2] == (MOVED, world.target)
    assert await world.rows(world.target) == before
    assert not any((await world.rows(world.source)).values())
    await _rewrite(world)


@pytest.mark.parametrize("step", [*BEFORE_THE_TURN, "source moved"])
async def test_a_move_that_was_killed_can_be_taken_back(world, step) -> None:
    before = await world.rows(world.source)

    _move_and_die(world, step)
    await _until_the_dead_one_s_lock_is_free(world)
    await move_slot(world.dsns, world.slot, world.source)

    assert _owners(await world.slot_rows()) == [world.source]
    assert (await world.slot_rows())[world.target][:2] == (MOVED, world.source)
    assert await world.rows(world.source) == before
    assert not any((await world.rows(world.target)).values())
    await _rewrite(world)


@pytest.mark.parametrize("step", BEFORE_THE_TURN)
async def test_a_move_that_fails_before_its_turn_undoes_itself(world, step) -> None:
    before = await world.rows(world.source)

    def fail(done) -> None:
        if done == step:
            raise Failure

    with pytest.raises(Failure):
        await move_slot(world.dsns, world.slot, world.target, on_step=fail)

    assert _owners(await world.slot_rows()) == [world.source]
    assert (await world.slot_rows())[world.target][:2] == (MOVED, world.source)
    assert await world.rows(world.source) == before
    assert not any((await world.rows(world.target)).values())
    await _rewrite(world)


async def test_a_move_that_fails_after_its_turn_goes_on_forward_only(world) -> None:
    before = await world.rows(world.source)

    def fail(done) -> None:
        if done == "source moved":
            raise Failure

    with pytest.raises(Failure):
        await move_slot(world.dsns, world.slot, world.target, on_step=fail)
    between = await world.slot_rows()
    await move_slot(world.dsns, world.slot, world.target)

    assert _owners(between) == []
    assert _owners(await world.slot_rows()) == [world.target]
    assert await world.rows(world.target) == before


async def test_an_instance_that_read_the_map_in_between_finds_the_slot(world) -> None:
    _move_and_die(world, "incoming")
    await _until_the_dead_one_s_lock_is_free(world)
    await world.shards.read_maps()

    await move_slot(world.dsns, world.slot, world.source)
    await world.shards.relocate(world.slot)

    assert world.shards.shard_of(world.slot) == world.source
