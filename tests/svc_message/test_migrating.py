import asyncio
import dataclasses
import json

import asyncpg
import pytest

from mesh.ids import SLOTS
from svc_message.migrating import Migration, MigrationRefused, migrate, migrations, run
from svc_message.settings import StoreSettings
from svc_message.shards.dsns import read_shards

OWNED, FROZEN, INCOMING, MOVED = 1, 2, 3, 4


async def _fetch(dsn, query, *arguments):
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


async def _execute(dsn, statement, *arguments):
    await _fetch(dsn, statement, *arguments)


async def _slots(dsn):
    return await _fetch(dsn, "SELECT slot, state, moved_to, version FROM slot ORDER BY slot")


async def _three(database):
    return {name: await database() for name in ("b", "a", "c")}


async def test_every_step_is_recorded_with_its_checksum(database) -> None:
    dsn = await database()

    await migrate({"only": dsn})

    recorded = await _fetch(dsn, "SELECT version, name, checksum FROM migration ORDER BY version")
    assert recorded == [(step.version, step.name, step.checksum) for step in migrations()]
    assert [version for version, _, _ in recorded][:2] == [1, 2]


async def test_slots_are_divided_once_in_the_order_of_the_shards(database) -> None:
    shards = await _three(database)

    await migrate(shards)

    tables = {name: await _slots(dsn) for name, dsn in shards.items()}
    for slot in range(SLOTS):
        owner = ("b", "a", "c")[0 if slot < SLOTS // 3 else 1 if slot < 2 * SLOTS // 3 else 2]
        for name in shards:
            expected = (OWNED, None) if name == owner else (MOVED, owner)
            assert tables[name][slot] == (slot, *expected, 1)
    assert all(len(table) == SLOTS for table in tables.values())


async def test_migrating_twice_changes_nothing(shard_dsns) -> None:
    before = {name: await _slots(dsn) for name, dsn in shard_dsns.items()}

    await migrate(shard_dsns)

    assert {name: await _slots(dsn) for name, dsn in shard_dsns.items()} == before


async def test_two_at_once_migrate_together(database) -> None:
    shards = {"first": await database(), "second": await database()}
    swapped = dict(reversed(shards.items()))

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for each in (shards, shards, swapped):
            tasks.create_task(migrate(each))

    tables = [await _slots(dsn) for dsn in shards.values()]
    for first, second in zip(*tables, strict=True):
        assert {first[1], second[1]} == {OWNED, MOVED}
    for dsn in shards.values():
        recorded = await _fetch(dsn, "SELECT version FROM migration ORDER BY version")
        assert [version for (version,) in recorded] == [step.version for step in migrations()]


async def test_a_step_that_was_changed_after_it_was_applied_is_refused(database) -> None:
    dsn = await database()
    steps = migrations()
    await migrate({"only": dsn}, steps=steps)
    changed = [*steps[:-1], dataclasses.replace(steps[-1], script=steps[-1].script + "-- more\n")]

    with pytest.raises(MigrationRefused, match=f"only: migration {steps[-1].version:04}"):
        await migrate({"only": dsn}, steps=changed)


async def test_a_step_that_fails_leaves_nothing_behind_and_can_be_repaired(database) -> None:
    dsn = await database()
    steps = migrations()
    number = steps[-1].version + 1
    broken = Migration(number, "broken", "CREATE TABLE half (id int); SELECT 1 / 0;")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate({"only": dsn}, steps=[*steps, broken])

    assert await _fetch(dsn, "SELECT to_regclass('half') IS NULL") == [(True,)]
    repaired = Migration(number, "broken", "CREATE TABLE half (id int);")
    await migrate({"only": dsn}, steps=[*steps, repaired])
    assert await _fetch(dsn, "SELECT to_regclass('half') IS NULL") == [(False,)]


async def test_a_step_that_comes_late_is_refused(database) -> None:
    dsn = await database()
    late, early = (Migration(number, f"step_{number}", "SELECT 1;") for number in (9002, 9001))
    await migrate({"only": dsn}, steps=[*migrations(), late])

    with pytest.raises(MigrationRefused, match="later step"):
        await migrate({"only": dsn}, steps=[*migrations(), early, late])


async def test_a_new_shard_owns_nothing_and_knows_who_does(shard_dsns, database) -> None:
    first, second = shard_dsns.values()
    await _execute(
        first, "UPDATE slot SET state = 4, moved_to = 'shard-1', version = 2 WHERE slot = 7"
    )
    await _execute(second, "UPDATE slot SET state = 1, moved_to = NULL, version = 2 WHERE slot = 7")
    await _execute(first, "UPDATE slot SET state = 2 WHERE slot = 8")
    await _execute(second, "UPDATE slot SET state = 3, moved_to = NULL, version = 2 WHERE slot = 8")
    grown = {**shard_dsns, "shard-2": await database()}

    await migrate(grown)

    table = await _slots(grown["shard-2"])
    assert len(table) == SLOTS
    assert {state for _, state, _, _ in table} == {MOVED}
    assert table[7] == (7, MOVED, "shard-1", 2)
    assert table[8] == (8, MOVED, "shard-0", 1)
    assert table[SLOTS - 1] == (SLOTS - 1, MOVED, "shard-1", 1)


async def test_a_shard_that_a_crash_left_without_slots_gets_its_own(shard_dsns) -> None:
    second = shard_dsns["shard-1"]
    before = await _slots(second)
    await _execute(second, "DELETE FROM slot")

    await migrate(shard_dsns)

    assert await _slots(second) == before


async def test_an_empty_shard_of_a_mesh_in_use_is_not_taken_for_a_new_one(shard_dsns) -> None:
    first, second = shard_dsns.values()
    await _execute(
        first, "INSERT INTO account (user_id, slot) VALUES (decode(repeat('0', 32), 'hex'), 1)"
    )
    await _execute(second, "DELETE FROM slot")

    with pytest.raises(MigrationRefused, match="shard-1: owns slots and is empty"):
        await migrate(shard_dsns)

    assert await _slots(second) == []


async def test_a_shard_that_is_down_stops_the_command_with_a_word(
    database, tmp_path, capsys
) -> None:
    file = tmp_path / "shards.json"
    dsn = await database()
    file.write_text(json.dumps({"up": dsn, "down": "postgresql://nobody:secret@127.0.0.1:1/x"}))

    code = await run(StoreSettings(shards=file))

    assert code == 1
    complaint = capsys.readouterr().err
    assert "cannot be reached" in complaint
    assert "secret" not in complaint


@pytest.mark.parametrize("text", ["{secret", "[]", "{}", '{"a": 1}', '{"": "secret"}'])
def test_a_shards_file_that_is_not_one_is_refused_without_quoting_it(tmp_path, text) -> None:
    file = tmp_path / "shards.json"
    file.write_text(text)

    with pytest.raises(ValueError) as refusal:
        read_shards(file)

    assert "secret" not in str(refusal.value)


async def test_behind_a_pooler_the_command_goes_past_it(database, tmp_path, capsys) -> None:
    dsn = await database()
    pooled, direct = tmp_path / "pooled.json", tmp_path / "direct.json"
    pooled.write_text(json.dumps({"a": "postgresql://nobody:secret@127.0.0.1:1/x"}))
    direct.write_text(json.dumps({"a": dsn}))

    code = await run(StoreSettings(shards=pooled, direct_shards=direct))

    assert (code, capsys.readouterr().err) == (0, "")
    assert await _fetch(dsn, "SHOW enable_seqscan") == [("off",)]


async def test_shards_that_only_one_of_the_two_ways_knows_are_refused(tmp_path, capsys) -> None:
    pooled, direct = tmp_path / "pooled.json", tmp_path / "direct.json"
    pooled.write_text(json.dumps({"a": "postgresql://nobody:secret@127.0.0.1:1/x"}))
    direct.write_text(json.dumps({"b": "postgresql://nobody:secret@127.0.0.1:1/x"}))

    assert await run(StoreSettings(shards=pooled, direct_shards=direct)) == 1

    assert capsys.readouterr().err == "shards and direct_shards name different shards\n"
