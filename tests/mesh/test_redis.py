import asyncio
import signal
from datetime import timedelta

import pytest
from redis.exceptions import NoScriptError, ResponseError

from mesh.redis import RedisError, Script, open_redis

GREATER = Script("""
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1])
    return 1
end
return 0
""")
WRONG = Script("return redis.call('HGET', KEYS[1], 'f')")


async def test_values_stay_bytes(redis_url):
    async with open_redis(redis_url) as redis:
        await redis.set("k", b"\xff\x00")

        assert await redis.get("k") == b"\xff\x00"


async def test_a_client_opens_without_a_server_and_works_once_it_is_there(own_valkey):
    url = own_valkey.address
    await own_valkey.kill()

    async with open_redis(url) as redis:
        with pytest.raises(RedisError):
            await redis.ping()
        await own_valkey.start()

        assert await redis.ping()


async def test_pooled_connections_that_died_with_the_server_are_replaced_unseen(own_valkey):
    async with open_redis(own_valkey.address, size=4) as redis:
        await asyncio.gather(*(redis.ping() for _ in range(4)))
        await own_valkey.kill()
        await own_valkey.start()

        assert await asyncio.gather(*(redis.ping() for _ in range(4))) == [True] * 4


async def test_a_task_ends_wherever_in_a_call_it_is_cancelled(redis_url):
    async def set_(redis) -> None:
        await redis.set("k", "1")

    async def pipe(redis) -> None:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.set("k", "1")
            await pipeline.execute()

    async def for_ever(redis, work, goes_on) -> None:
        while True:
            await work(redis)
            goes_on.append(1)
            await asyncio.sleep(3600)

    for work in (set_, pipe):
        for steps in range(40):  # enough to be connected and answered
            async with open_redis(redis_url) as redis:
                goes_on: list[int] = []
                task = asyncio.create_task(for_ever(redis, work, goes_on))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=2)
                assert done, (work.__name__, steps)
                assert task.cancelled()


async def test_callers_beyond_the_pool_wait_for_a_connection(redis_url):
    async with open_redis(redis_url, size=2) as redis:
        counted = await asyncio.gather(*(redis.incr("n") for _ in range(100)))

    assert sorted(counted) == list(range(1, 101))


async def test_a_server_that_hangs_is_given_up_in_time(own_valkey):
    short = timedelta(milliseconds=100)
    async with open_redis(own_valkey.address, size=1, wait=short, timeout=short) as redis:
        await redis.ping()
        own_valkey.program.kill(signal.SIGSTOP)
        try:
            async with asyncio.timeout(5):
                results = await asyncio.gather(
                    *(redis.ping() for _ in range(3)), return_exceptions=True
                )
        finally:
            own_valkey.program.kill(signal.SIGCONT)

        assert all(isinstance(result, RedisError) for result in results)


async def test_a_script_runs_and_survives_a_flush_of_the_scripts(own_valkey):
    async with open_redis(own_valkey.address) as redis:
        assert await GREATER.run(redis, keys=["e"], args=[5]) == 1
        await redis.script_flush()
        assert await GREATER.run(redis, keys=["e"], args=[4]) == 0
        await redis.script_flush()

        assert await GREATER.run_many(redis, [(["e"], [6]), (["e"], [6]), (["f"], [1])]) == [
            1,
            0,
            1,
        ]


async def test_many_runs_of_a_script_are_one_round_trip_even_when_one_fails(redis_url):
    async with open_redis(redis_url) as redis:
        await redis.set("text", b"x")
        await redis.hset("hash", "f", b"y")

        results = await WRONG.run_many(redis, [(["hash"], []), (["text"], []), (["none"], [])])

    assert results[0] == b"y"
    assert isinstance(results[1], ResponseError)
    assert not isinstance(results[1], NoScriptError)
    assert results[2] is None


async def test_no_runs_of_a_script_need_no_server():
    async with open_redis("redis://127.0.0.1:1") as redis:
        assert await GREATER.run_many(redis, []) == []
