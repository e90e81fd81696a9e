"""What a session has set, whether its connection says it or a pooler hands it on."""

from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from mesh.errors import Unavailable
from mesh.migrations import migrating, prepare_for_pooler
from mesh.postgres import USUAL, acquired, open_pool
from mesh.sessions import give_role, usual

from .test_postgres import PATIENCE

_SHOWN = "SELECT name, setting, source FROM pg_settings WHERE name = ANY($1)"


@pytest.fixture
async def role(database, stack):
    """A database, and the DSN by which one comes to it who is no superuser."""
    dsn = await database()
    name = f"plain_{urlsplit(dsn).path.removeprefix('/')}"
    async with migrating(stack.postgres_dsn) as connection:
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'plain'")
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{name}:plain@{host}"))
    async with migrating(stack.postgres_dsn) as connection:
        await connection.execute(f"DROP ROLE {name}")


async def shown(dsn, *, is_pooled):
    async with (
        open_pool(dsn, size=1, application_name="test", is_pooled=is_pooled) as pool,
        acquired(pool, within=PATIENCE) as connection,
    ):
        return {row[0]: (row[1], row[2]) for row in await connection.fetch(_SHOWN, [*usual(USUAL)])}


async def test_behind_a_pooler_the_role_says_what_a_connection_says_elsewhere(role) -> None:
    await prepare_for_pooler(role)

    said, given = await shown(role, is_pooled=False), await shown(role, is_pooled=True)

    assert {name: one[0] for name, one in given.items()} == {
        name: one[0] for name, one in said.items()
    }
    assert {source for _, source in said.values()} == {"client"}
    assert {source for _, source in given.values()} == {"database user"}


async def test_behind_a_pooler_a_session_that_lacks_something_is_not_used(role) -> None:
    await prepare_for_pooler(role)
    async with migrating(role) as connection:
        await give_role(connection, {"plan_cache_mode": "auto"})

    with pytest.raises(Unavailable, match=r"lack plan_cache_mode$"):
        await shown(role, is_pooled=True)


async def test_preparing_for_a_pooler_twice_gives_the_last_that_was_said(role) -> None:
    async with migrating(role) as connection:
        await give_role(connection, {"lock_timeout": "7s"})
    await prepare_for_pooler(role)
    await prepare_for_pooler(role)

    assert (await shown(role, is_pooled=True))["lock_timeout"] == ("500", "database user")


async def test_a_variable_of_ours_that_is_off_needs_no_right_and_one_that_is_on_does(
    role, stack
) -> None:
    await prepare_for_pooler(role, {"whimbrel.events": "off"})
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"whimbrel\.events"):
        await prepare_for_pooler(role, {"whimbrel.events": "on"})

    name = urlsplit(role).username
    async with migrating(stack.postgres_dsn) as connection:
        await connection.execute(f'GRANT SET ON PARAMETER "whimbrel.events" TO {name}')
    try:
        await prepare_for_pooler(role, {"whimbrel.events": "on"})
        async with (
            open_pool(role, size=1, application_name="test", is_pooled=True) as pool,
            acquired(pool, within=PATIENCE) as connection,
        ):
            assert await connection.fetchval("SHOW whimbrel.events") == "on"
    finally:
        async with migrating(stack.postgres_dsn) as connection:
            await connection.execute(f'REVOKE SET ON PARAMETER "whimbrel.events" FROM {name}')


async def test_events_that_are_off_are_off_whatever_the_role_was_given(database) -> None:
    dsn = await database()
    await prepare_for_pooler(dsn, {"whimbrel.events": "on"})
    off = {"whimbrel.events": "off"}
    async with (
        open_pool(dsn, size=1, application_name="test", variables=off) as pool,
        acquired(pool, within=PATIENCE) as connection,
    ):
        assert await connection.fetchval("SHOW whimbrel.events") == "off"
