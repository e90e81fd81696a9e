"""Postgres out of the wheel: durable, on loopback, behind a password. And new databases in any."""

import re
import signal
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mesh.errors import Unavailable
from mesh.postgres import Limits, acquired, open_pool
from whimbrel_cli.stack.cluster import REACHABLE, SUPERUSER, Cluster, lay_out
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.programs import Command

_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "huge_pages": "off",
    "jit": "off",
    # The promise "accepted is durable" rests on these two.
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    # Queues churn: rows die as fast as they come.
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_cost_delay": "0",
    # Ciphertexts and tokens never reach the log.
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

_PROBE_LIMITS = Limits(connect=timedelta(seconds=1))
_MAKING_LIMITS = Limits(statement=timedelta(seconds=30), lock=timedelta(seconds=30))
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

_EXISTS = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"


class Postgres:
    """The recipe of a Postgres whose cluster is kept in a directory."""

    def __init__(
        self, directory: Path, *, name: str = "postgres", reachable: Path = REACHABLE
    ) -> None:
        self.name = name
        self._reachable = reachable
        self._directory = directory
        self._laid_out: Cluster | None = None

    async def prepare(self) -> None:
        self._laid_out = await lay_out(
            self._directory, self._directory / "initdb.log", reachable=self._reachable
        )

    def command(self, port: int, log: Path) -> Command:
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        return Command(
            self.name,
            [self._cluster.server, "-D", str(self._cluster.directory), "-p", str(port), *settings],
            log,
            owner=self._cluster.owner,
            stop_signal=signal.SIGINT,  # disconnects everybody, then writes a checkpoint
            stop_seconds=60,
            orphan_signal=signal.SIGINT,
        )

    async def answers(self, port: int) -> bool:
        try:
            async with (
                open_pool(
                    self.address(port), size=1, application_name="stack-probe", limits=_PROBE_LIMITS
                ) as pool,
                acquired(pool, within=_PROBE_LIMITS.connect),
            ):
                return True
        except Unavailable:
            return False

    def address(self, port: int) -> str:
        """The superuser's entry."""
        return f"postgresql://{SUPERUSER}:{self._cluster.password}@{LOOPBACK}:{port}/postgres"

    @property
    def _cluster(self) -> Cluster:
        if self._laid_out is None:
            raise RuntimeError(f"{self.name} was never prepared")
        return self._laid_out


async def ensure_database(dsn: str, name: str, *, template: str = "template1") -> str:
    """Make the database if it is not there, and return its DSN."""
    if not await _query(dsn, _EXISTS, name):
        await _execute(dsn, f"CREATE DATABASE {_identifier(name)} TEMPLATE {_identifier(template)}")
    return database_dsn(dsn, name)


async def drop_database(dsn: str, name: str) -> None:
    """Delete the database with all that is connected to it."""
    await _execute(dsn, f"DROP DATABASE IF EXISTS {_identifier(name)} WITH (FORCE)")


def database_dsn(dsn: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def _identifier(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StackError(f"{name!r} cannot name a database: a-z, 0-9 and _ only")
    return name


async def _query(dsn: str, statement: str, *arguments: object) -> object:
    async with (
        open_pool(dsn, size=1, application_name="stack", limits=_MAKING_LIMITS) as pool,
        acquired(pool, within=_MAKING_LIMITS.connect) as connection,
    ):
        return await connection.fetchval(statement, *arguments)


async def _execute(dsn: str, statement: str) -> None:
    async with (
        open_pool(dsn, size=1, application_name="stack", limits=_MAKING_LIMITS) as pool,
        acquired(pool, within=_MAKING_LIMITS.connect) as connection,
    ):
        await connection.execute(statement)
