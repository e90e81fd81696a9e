"""Steps of a database's schema, kept as files, applied forward only and once.

They may run twice, or by two at once. A step whose text differs from what was applied is refused.
"""

import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources

import structlog

from mesh.postgres import USUAL, Connection, Limits, acquired, open_pool
from mesh.sessions import give_role, usual

log = structlog.get_logger(__name__)

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_WAIT = timedelta(seconds=5)
# An index on a big table takes its time, and a twin may be at work.
_LIMITS = Limits(
    statement=timedelta(hours=1),
    lock=timedelta(minutes=2),
    idle_in_transaction=timedelta(minutes=2),
)

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('whimbrel migration', 0))"
_CREATE = """
CREATE TABLE IF NOT EXISTS migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_APPLIED = "SELECT version, name, checksum FROM migration"
_RECORD = "INSERT INTO migration (version, name, checksum) VALUES ($1, $2, $3)"


class MigrationRefused(Exception):
    """A database is not as the migrations expect; the step that found it changed nothing."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    script: str

    @property
    def checksum(self) -> str:
        """What the applied script is compared with."""
        return hashlib.sha256(self.script.encode()).hexdigest()


def migrations_of(package: str) -> list[Migration]:
    """The steps in a package's folder `sql`, in order."""
    found = []
    for file in resources.files(package).joinpath("sql").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text()))
    return sorted(found, key=lambda migration: migration.version)


async def apply(name: str, dsn: str, steps: Sequence[Migration]) -> None:
    """Bring the database up to date; `name` is what it is called in words.

    Raises MigrationRefused, Unavailable.
    """
    async with migrating(dsn) as connection:
        async with connection.transaction():
            await connection.execute(LOCK)
            await connection.execute(_CREATE)
        for step in steps:
            async with connection.transaction():
                await connection.execute(LOCK)
                await _apply_once(name, connection, step)


async def prepare_for_pooler(dsn: str, variables: Mapping[str, str] | None = None) -> None:
    """Give the role what sessions say of themselves where no pooler stands before the server.

    `dsn` is the server's own. Raises STORE_ERRORS, for one where the role may not set a variable.
    """
    async with migrating(dsn) as connection, connection.transaction():
        await connection.execute(LOCK)
        await give_role(connection, {**usual(USUAL), **(variables or {})})


@contextlib.asynccontextmanager
async def migrating(dsn: str) -> AsyncIterator[Connection]:
    """A connection that may take its time."""
    async with (
        open_pool(dsn, size=1, application_name="whimbrel-migrate", limits=_LIMITS) as pool,
        acquired(pool, within=_WAIT) as connection,
    ):
        yield connection


async def _apply_once(name: str, connection: Connection, step: Migration) -> None:
    applied = {row["version"]: row for row in await connection.fetch(_APPLIED)}
    known = applied.get(step.version)
    if known is None:
        if applied and max(applied) > step.version:
            raise MigrationRefused(f"{name}: {step.name} comes after a later step was applied")
        await connection.execute(step.script)
        await connection.execute(_RECORD, step.version, step.name, step.checksum)
        log.info("migrated", database=name, version=step.version, name=step.name)
    elif known["checksum"] != step.checksum:
        raise MigrationRefused(
            f"{name}: migration {step.version:04} ({step.name}) was applied with another text;"
            " an applied migration is never changed: add a new one"
        )
