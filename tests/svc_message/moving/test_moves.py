import asyncio
import json
import os
import subprocess
import sys

import pytest

from mesh.ids import SLOTS, random_id
from svc_message.conversations import direct_conversation
from svc_message.migrating import migrate
from svc_message.model import Outcome
from svc_message.shards.moving import MoveRefused, move_slot
from svc_message.shards.slot_rows import TABLES, StillServed, remove_rows

OWNED, FROZEN, INCOMING, MOVED = 1, 2, 3, 4


async def test_every_table_of_a_shard_moves(world) -> None:
    names = set(await world.rows(world.source))

    assert names == {table.name for table in TABLES}


async def test_the_world_of_these_tests_has_rows_in_every_table(world) -> None:
    rows = await world.rows(world.source)

    assert not [name for name in rows if not rows[name]]


async def test_a_moved_slot_has_all_its_rows_there_and_none_here(world) -> None:
    before = await world.rows(world.source)
    others = await world.rows(world.source, of_slot=False)

    moved = await move_slot(world.dsns, world.slot, world.target)

    assert await world.rows(world.target) == before
    assert not any((await world.rows(world.source)).values())
    assert await world.rows(world.source, of_slot=False) == others
    assert moved.rows == sum(len(rows) for rows in before.values())


async def test_both_shards_say_who_owns_a_moved_slot(world) -> None:
    await move_slot(world.dsns, world.slot, world.target)

    assert await world.slot_rows() == {
        world.source: (MOVED, world.target, 2),
        world.target: (OWNED, None, 2),
    }


async def test_a_third_shard_learns_of_the_move(world, database) -> None:
    grown = {**world.dsns, "shard-2": await database()}
    await migrate(grown)

    await move_slot(grown, world.slot, world.target)
    await move_slot(grown, world.slot, "shard-2")

    rows = await world.slot_rows()
    assert rows == dict.fromkeys(world.dsns, (MOVED, "shard-2", 3))
    assert not any((await world.rows(world.target)).values())


async def test_life_goes_on_where_the_slot_is(world) -> None:
    peer = world.peers[0]
    before = await world.send(world.hero, peer, client_id=b"c" * 16)
    await move_slot(world.dsns, world.slot, world.target)

    stale = await world.send(world.hero, peer)
    retried = await world.send(world.hero, peer, shard=world.target, client_id=b"c" * 16)
    following = await world.send(world.hero, peer, shard=world.target)

    assert stale.outcome == Outcome.SLOT_MOVED
    assert (retried.outcome, retried.seq) == (Outcome.REPEATED, before.seq)
    assert (following.outcome, following.seq) == (Outcome.DONE, before.seq + 1)


async def test_a_slot_comes_back_as_it_went(world) -> None:
    before = await world.rows(world.source)

    for shard in (world.target, world.source, world.target, world.source):
        await move_slot(world.dsns, world.slot, shard)

    assert await world.rows(world.source) == before
    assert not any((await world.rows(world.target)).values())
    assert (await world.slot_rows())[world.source] == (OWNED, None, 5)


async def test_moving_a_slot_to_where_it_is_changes_nothing(world) -> None:
    before = await world.rows(world.source), await world.slot_rows()

    assert await move_slot(world.dsns, world.slot, world.source) is None

    assert (await world.rows(world.source), await world.slot_rows()) == before


async def test_the_freeze_waits_for_a_batch_that_is_not_committed(world) -> None:
    steps: list[str] = []
    request = world.a_send(world.hero, world.peers[0])

    async with world.pool(world.source).acquire() as connection:
        batch = connection.transaction()
        await batch.start()
        owned = await connection.fetchval("SELECT owned_slots($1)", [request.slot])
        moving = asyncio.ensure_future(
            move_slot(world.dsns, world.slot, world.target, on_step=steps.append)
        )
        done, _ = await asyncio.wait([moving], timeout=0.5)
        steps_before_commit = list(steps)
        await connection.execute(
            "UPDATE conversation SET last_seq = 99 WHERE conversation_id = $1",
            request.conversation_id,
        )
        await batch.commit()
    await moving

    assert owned == [world.slot]
    assert (done, steps_before_commit) == (set(), [])
    there = await world.pool(world.target).fetchval(
        "SELECT last_seq FROM conversation WHERE conversation_id = $1", request.conversation_id
    )
    assert there == 99


async def test_a_writer_loses_nothing_and_writes_nothing_old_after_the_freeze(world) -> None:
    peer = world.peers[0]
    conversation_id, _ = direct_conversation(world.hero, peer)
    accepted: list[tuple[str, int]] = []
    frozen_at: list[int] = []
    shard, is_moved = world.source, asyncio.Event()

    async def write() -> None:
        nonlocal shard
        while not is_moved.is_set() or len(accepted) < frozen_at[0] + 50:
            result = await world.send(world.hero, peer, shard=shard, client_id=random_id())
            if result.outcome == Outcome.DONE:
                accepted.append((shard, result.seq))
            elif result.outcome == Outcome.SLOT_MOVED:
                shard = world.target
            else:
                assert result.outcome == Outcome.SLOT_MOVING

    def on_step(step) -> None:
        if step == "frozen":
            frozen_at.append(len(accepted))

    writers = [asyncio.ensure_future(write()) for _ in range(3)]
    while len(accepted) < 50:
        await asyncio.sleep(0)
    await move_slot(world.dsns, world.slot, world.target, on_step=on_step)
    is_moved.set()
    await asyncio.gather(*writers)

    seqs = sorted(seq for _, seq in accepted)
    assert seqs == list(range(seqs[0], seqs[0] + len(accepted)))
    here = [seq for name, seq in accepted if name == world.source]
    there = [seq for name, seq in accepted if name == world.target]
    assert max(here) < min(there)
    row = await world.pool(world.target).fetchrow(
        "SELECT c.last_seq, (SELECT count(*) FROM dedup_3 d WHERE d.conversation_id = $1 AND"
        " d.seq = ANY ($2)) AS known FROM conversation c WHERE c.conversation_id = $1",
        conversation_id,
        seqs,
    )
    assert tuple(row) == (seqs[-1], len(seqs))
    assert not any((await world.rows(world.source)).values())


async def test_a_copy_that_is_not_like_its_original_is_not_served(world) -> None:
    before = await world.rows(world.source)
    await world.pool(world.target).execute(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.read_up_to := NEW.read_up_to + 1; RETURN NEW; END $$;"
        "CREATE TRIGGER spoil BEFORE INSERT ON thread FOR EACH ROW EXECUTE FUNCTION spoil()"
    )

    with pytest.raises(MoveRefused, match="copy of thread"):
        await move_slot(world.dsns, world.slot, world.target)

    assert await world.rows(world.source) == before
    assert not any((await world.rows(world.target)).values())
    assert (await world.slot_rows())[world.source][0] == OWNED


async def test_two_moves_of_one_slot_do_not_meet(world) -> None:
    rivals = [move_slot(world.dsns, world.slot, world.target) for _ in range(2)]

    outcomes = await asyncio.gather(*rivals, return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, MoveRefused)]
    assert len(refused) == 1
    assert "under way" in str(refused[0])
    assert (await world.slot_rows())[world.target] == (OWNED, None, 2)


async def test_rows_of_a_slot_that_is_served_are_not_removed(world) -> None:
    before = await world.rows(world.source)

    async with world.pool(world.source).acquire() as connection:
        with pytest.raises(StillServed):
            await remove_rows(connection, slot=world.slot)

    assert await world.rows(world.source) == before


@pytest.mark.parametrize(
    ("slot", "shard"), [(-1, "shard-0"), (SLOTS, "shard-0"), (0, "nowhere"), (0, "")]
)
async def test_what_is_not_a_slot_or_a_shard_is_refused(shard_dsns, slot, shard) -> None:
    with pytest.raises(MoveRefused):
        await move_slot(shard_dsns, slot, shard)


async def test_the_command_says_what_it_did(world, tmp_path) -> None:
    file = tmp_path / "shards.json"
    file.write_text(json.dumps(world.dsns))

    moved, again, refused, misused = (
        _run_command(file, *arguments)
        for arguments in (
            (world.slot, world.target),
            (world.slot, world.target),
            (world.slot, "nowhere"),
            ("first", world.target),
        )
    )

    assert f"moved from {world.source} to {world.target}" in moved.stdout
    assert f"slot {world.slot} is on {world.target}" in again.stdout
    assert "no shard 'nowhere'" in refused.stderr
    assert "usage" in misused.stderr
    assert [run.returncode for run in (moved, again, refused, misused)] == [0, 0, 1, 2]


def _run_command(shards_file, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "svc_message", "move-slot", *map(str, arguments)],
        env={**os.environ, "WHIMBREL_MESSAGE_SHARDS": str(shards_file)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
