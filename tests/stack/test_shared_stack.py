import asyncpg
import pytest
import redis.asyncio


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
