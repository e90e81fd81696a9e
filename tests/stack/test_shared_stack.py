import asyncio
import signal
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio

from whimbrel_cli.stack.programs import Command, Program

_KEEPER = Path(__file__).parents[1] / "stack_keeper.py"


async def _value(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_each_database_is_fresh_and_durable(database) -> None:
    first, second = await database(), await database()

    names = [await _value(dsn, "SELECT current_database()") for dsn in (first, second)]

    assert names[0] != names[1]
    assert await _value(first, "SHOW fsync") == "on"
    assert await _value(first, "SHOW synchronous_commit") == "on"


async def test_a_wrong_password_is_refused(stack) -> None:
    dsn = stack.postgres_dsn.replace("whimbrel:", "whimbrel:x")

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn)


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_finds_its_redis_empty(redis_url, turn) -> None:
    async with redis.asyncio.from_url(redis_url) as client:
        before = await client.dbsize()
        await client.set(f"left-by-{turn}", "x")

    assert before == 0


async def test_the_stack_of_a_run_that_was_killed_takes_itself_down(tmp_path: Path) -> None:
    run = Program(Command("run", ["/bin/sleep", "60"], tmp_path / "run.log"))
    run.start()
    directory = tmp_path / "stack"
    argv = [sys.executable, str(_KEEPER), str(directory), str(run.pid)]
    keeper = Program(Command("keeper", argv, tmp_path / "keeper.log"))

    async def is_up() -> bool:
        return (directory / "addresses.json").exists()

    keeper.start()
    await keeper.until_ready(is_up)
    servers = psutil.Process(keeper.pid).children()
    run.kill(signal.SIGKILL)
    await run.ended()
    async with asyncio.timeout(30):
        await keeper.ended()

    assert len(servers) == 3
    assert not any(server.is_running() for server in servers)
    assert not directory.exists()
