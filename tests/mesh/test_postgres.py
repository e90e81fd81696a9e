import asyncio
import os
import signal
from datetime import timedelta

import asyncpg
import pytest

from mesh.errors import Unavailable
from mesh.postgres import STORE_ERRORS, Limits, acquired, is_transient, open_pool

# How long a test waits for what comes at once on a machine that has nothing else to do.
PATIENCE = timedelta(seconds=20)


def pool_of(dsn, **options):
    return open_pool(dsn, **{"size": 2, "application_name": "test", **options})


async def answer(pool, within=PATIENCE):
    async with acquired(pool, within=within) as connection:
        return await connection.fetchval("SELECT 1")


async def test_a_pool_opens_without_a_server_and_works_once_it_is_there(own_postgres):
    dsn = own_postgres.address
    await own_postgres.kill()

    async with pool_of(dsn) as pool:
        with pytest.raises(Unavailable):
            await answer(pool)
        await own_postgres.start()

        assert await answer(pool) == 1


async def test_a_pool_outlives_a_crash_of_the_server(own_postgres):
    async with pool_of(own_postgres.address) as pool:
        async with acquired(pool, within=PATIENCE), acquired(pool, within=PATIENCE):
            pass  # both connections are made
        async with acquired(pool, within=PATIENCE) as busy:
            waiting = asyncio.ensure_future(busy.fetchval("SELECT pg_sleep(1.5)"))
            await asyncio.sleep(0)
            await own_postgres.kill()
            with pytest.raises(STORE_ERRORS) as broken:
                await waiting

        assert is_transient(broken.value)
        # The other connection may not know yet that it is dead.
        with pytest.raises(STORE_ERRORS) as away:
            await answer(pool)
        assert isinstance(away.value, Unavailable) or is_transient(away.value)
        await own_postgres.start()
        assert [await answer(pool) for _ in range(4)] == [1] * 4


async def test_a_backend_that_is_terminated_is_replaced(database):
    async with pool_of(await database(), size=1) as pool:
        async with acquired(pool, within=PATIENCE) as connection:
            with pytest.raises(asyncpg.PostgresError) as ended:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            with pytest.raises(asyncpg.InterfaceError) as closed:
                await connection.execute("SELECT 1")

        assert is_transient(ended.value)
        assert is_transient(closed.value)
        assert await answer(pool) == 1


async def test_a_connection_that_lost_its_thread_is_not_used_again(database):
    async with pool_of(await database(), size=1) as pool:
        backends = []

        async def lose_the_thread():
            async with acquired(pool, within=PATIENCE) as connection:
                backends.append(await connection.fetchval("SELECT pg_backend_pid()"))
                raise asyncpg.InternalClientError("another operation is in progress")

        with pytest.raises(asyncpg.InternalClientError):
            await lose_the_thread()

        async with acquired(pool, within=PATIENCE) as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") not in backends


async def test_a_server_that_hangs_is_given_up_in_time(own_postgres):
    limits = Limits(statement=timedelta(seconds=0.2), connect=timedelta(seconds=3))
    async with pool_of(own_postgres.address, size=1, limits=limits) as pool:
        async with acquired(pool, within=PATIENCE) as connection:
            backend = await connection.fetchval("SELECT pg_backend_pid()")
        own_postgres.program.kill(signal.SIGSTOP)
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises((TimeoutError, Unavailable)) as given_up:
                async with asyncio.timeout(20):
                    await answer(pool)
        finally:
            os.kill(backend, signal.SIGCONT)
            own_postgres.program.kill(signal.SIGCONT)

        assert is_transient(given_up.value) or isinstance(given_up.value, Unavailable)
        assert await answer(pool) == 1


async def test_a_caller_waits_for_a_free_connection_and_no_longer(database):
    async with pool_of(await database(), size=1) as pool, acquired(pool, within=PATIENCE):
        with pytest.raises(Unavailable):
            await answer(pool, timedelta(milliseconds=50))


async def test_the_server_enforces_the_limits(database):
    limits = Limits(
        statement=timedelta(milliseconds=200),
        lock=timedelta(milliseconds=100),
        idle_in_transaction=timedelta(milliseconds=300),
    )
    shown = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    async with (
        pool_of(await database(), limits=limits) as pool,
        acquired(pool, within=PATIENCE) as connection,
    ):
        assert [await connection.fetchval(f"SHOW {name}") for name in shown] == [
            "200ms",
            "100ms",
            "300ms",
        ]
        assert await connection.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
        with pytest.raises(asyncpg.QueryCanceledError) as late:
            await connection.execute("SELECT pg_sleep(5)")

    assert is_transient(late.value)


async def test_a_transaction_that_was_left_open_does_not_reach_the_next_caller(database):
    async with pool_of(await database(), size=1) as pool:
        async with acquired(pool, within=PATIENCE) as connection:
            await connection.execute("CREATE TABLE kept (n int)")
            await connection.transaction().start()
            await connection.execute("INSERT INTO kept VALUES (1)")
            asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)

        async with acquired(pool, within=PATIENCE) as connection:
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SELECT count(*) FROM kept") == 0


async def test_giving_a_connection_back_costs_no_round_trip(database):
    async with pool_of(await database(), size=1) as pool:
        async with acquired(pool, within=PATIENCE) as connection:
            queries = connection._con._protocol.queries_count
        async with acquired(pool, within=PATIENCE) as connection:
            assert connection._con._protocol.queries_count == queries


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (asyncpg.DeadlockDetectedError(), True),
        (asyncpg.SerializationError(), True),
        (asyncpg.TooManyConnectionsError(), True),
        (asyncpg.LockNotAvailableError(), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.CannotConnectNowError(), True),
        (asyncpg.ConnectionDoesNotExistError(), True),
        (asyncpg.PostgresIOError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncpg.InternalClientError("another operation (2) is in progress"), True),
        (asyncpg.UniqueViolationError(), False),
        (asyncpg.UndefinedTableError(), False),
        (asyncpg.DataError(), False),
        (asyncpg.InvalidPasswordError(), False),
        (asyncpg.InterfaceError("cannot encode that"), False),
        (ValueError(), False),
    ],
)
def test_what_may_succeed_when_repeated_is_told_from_what_may_not(error, transient):
    assert is_transient(error) is transient
