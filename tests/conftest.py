"""Fixtures that every suite may use: one embedded stack a run, and a clean place in it a test.

`database`, `redis_url` and `etcd` are for tests that leave the servers alone. A test that kills or
flushes a server takes `own_postgres`, `own_valkey` or `own_etcd`, which nobody else uses.
"""

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests.stack_keeper import MEMORY, running
from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.etcd import Etcd
from whimbrel_cli.stack.postgres import Postgres, drop_database, ensure_database
from whimbrel_cli.stack.servers import Server
from whimbrel_cli.stack.valkey import DATABASES, Valkey

_ROOT = Path(__file__).parent.parent
_KEEPER = Path(__file__).parent / "stack_keeper.py"
_RUN = "WHIMBREL_TEST_RUN"  # the run's directory and main process, for its workers
_KEEPER_SECONDS = 60
_DATABASES_PER_WORKER = 100
_ROOM = 8 * 1024**3  # most of it the write-ahead log

MakeDatabase = Callable[..., Awaitable[str]]


@dataclass(frozen=True)
class StackAddresses:
    """The servers of this run, shared by all its tests."""

    postgres_dsn: str
    redis_url: str
    etcd_endpoint: str


@dataclass(frozen=True)
class EtcdSpace:
    """A part of the shared etcd that belongs to one test."""

    endpoint: str
    prefix: str


def pytest_configure(config: pytest.Config) -> None:
    # Nobody's own key ring is filled with the keys of tests.
    os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
    # How long an example takes tells of the machine.
    settings.register_profile("whimbrel", deadline=None)
    settings.load_profile("whimbrel")
    if not hasattr(config, "workerinput"):
        directory = _place() / f"whimbrel-tests-{uuid.uuid4().hex[:12]}"
        os.environ[_RUN] = f"{directory}:{os.getpid()}"


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        # What runs that were killed left behind, once their temporary directories are gone.
        _remove_clusters(Path(tempfile.gettempdir()), only_lost=True)
        _remove_clusters(MEMORY, only_lost=True, made_in=MEMORY)


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    directory, _ = _run()
    for kept, server in ((directory, "postgres"), (_seaweed_of(directory), "seaweed")):
        keeper_pid = kept / "keeper.pid"
        if keeper_pid.exists():
            # The keeper removes the directory; it may have ended by itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(keeper_pid.read_text()), 15)
            _wait_until((kept / server).exists, becomes=False)
        shutil.rmtree(kept, ignore_errors=True)
    _remove_clusters(config._tmp_path_factory.getbasetemp(), only_lost=False)


@pytest.fixture(scope="session")
def stack() -> StackAddresses:
    """The embedded stack of the run, started by whoever needs it first."""
    directory, main_pid = _run()
    addresses = _kept(directory, main_pid)
    return StackAddresses(addresses["postgres"], addresses["redis"], addresses["etcd"])


@pytest.fixture(scope="session")
def s3_url() -> str:
    """A bucket of the run, with its keys; who uses it gives objects random names."""
    directory, main_pid = _run()
    return _kept(_seaweed_of(directory), main_pid, "seaweed")["s3"]


@pytest.fixture
async def database(stack: StackAddresses) -> AsyncIterator[MakeDatabase]:
    """Makes databases that last as long as the test: `dsn = await database()`."""
    made = []

    async def make(*, template: str = "template1") -> str:
        name = f"test_{uuid.uuid4().hex}"
        made.append(name)
        return await ensure_database(stack.postgres_dsn, name, template=template)

    yield make

    for name in made:
        await drop_database(stack.postgres_dsn, name)


@pytest.fixture
def redis_url(stack: StackAddresses, _redis_numbers: Iterator[int]) -> str:
    """A numbered database of the shared Valkey that no other test uses. FLUSHDB is fine in it."""
    server, _, _ = stack.redis_url.rpartition("/")
    return f"{server}/{next(_redis_numbers)}"


@pytest.fixture
def etcd(stack: StackAddresses) -> EtcdSpace:
    """A key prefix in the shared etcd that no other test uses."""
    return EtcdSpace(stack.etcd_endpoint, f"/test/{uuid.uuid4().hex}/")


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[Server]:
    """A Postgres for this test alone: `await own_postgres.kill()`, `await own_postgres.start()`."""
    async with running(Server(Postgres(tmp_path / "postgres"), log=tmp_path / "pg.log")) as server:
        yield server
    cluster.remove(tmp_path / "postgres")


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[Server]:
    """A Valkey for this test alone, to flush and to kill."""
    async with running(Server(Valkey(tmp_path / "valkey"), log=tmp_path / "valkey.log")) as server:
        yield server


@pytest.fixture
async def own_etcd(tmp_path: Path) -> AsyncIterator[Server]:
    """An etcd for this test alone, to kill and to compact."""
    async with running(Server(Etcd(tmp_path / "etcd"), log=tmp_path / "etcd.log")) as server:
        yield server


@pytest.fixture(scope="session")
def _redis_numbers(worker_id: str) -> Iterator[int]:
    worker = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    first = (1 + worker * _DATABASES_PER_WORKER) % DATABASES
    # A worker with more tests than numbers comes round to numbers whose tests are over.
    return itertools.cycle(range(first, min(first + _DATABASES_PER_WORKER, DATABASES)))


def _place() -> Path:
    """Where the shared stores are: in memory, if there is room and programs may run there.

    A database is some 300 files. Making one costs 390 ms on a disk and 40 in memory, and two are
    made for each of hundreds of tests.
    """
    try:
        about = os.statvfs(MEMORY)
    except OSError:
        return Path(tempfile.gettempdir())
    has_room = about.f_bavail * about.f_frsize >= _ROOM and os.access(MEMORY, os.W_OK)
    is_good = has_room and not about.f_flag & os.ST_NOEXEC
    return MEMORY if is_good else Path(tempfile.gettempdir())


def _run() -> tuple[Path, int]:
    directory, _, main_pid = os.environ[_RUN].rpartition(":")
    return Path(directory), int(main_pid)


def _seaweed_of(directory: Path) -> Path:
    """On a disk; the other stores are there without it."""
    return Path(tempfile.gettempdir()) / f"{directory.name}-seaweed"


def _remove_clusters(
    directory: Path, *, only_lost: bool, made_in: Path = cluster.REACHABLE
) -> None:
    """Remove what clusters under the directory keep elsewhere; the logs stay with the tests."""
    for home, kept_for in cluster.homes_kept_for(directory, made_in=made_in):
        if not only_lost or not kept_for.exists():
            shutil.rmtree(home, ignore_errors=True)


def _kept(directory: Path, main_pid: int, *what: str) -> dict[str, str]:
    """The addresses of servers that a keeper holds, started by whoever needs them first."""
    directory.mkdir(mode=0o700, exist_ok=True)
    with (directory / "starting").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (directory / "addresses.json").exists():
            _start_keeper(directory, main_pid, *what)
    addresses: dict[str, str] = json.loads((directory / "addresses.json").read_text())
    return addresses


def _start_keeper(directory: Path, main_pid: int, *what: str) -> None:
    with (directory / "keeper.log").open("w") as log:
        keeper = subprocess.Popen(
            [sys.executable, str(_KEEPER), str(directory), str(main_pid), *what],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # It outlives this worker, so this worker is not the one to wait for it.
    keeper.returncode = 0
    (directory / "keeper.pid").write_text(str(keeper.pid))
    ready = directory / "addresses.json"
    _wait_until(lambda: ready.exists() or os.waitpid(keeper.pid, os.WNOHANG) != (0, 0))
    if not ready.exists():
        pytest.fail((directory / "keeper.log").read_text())


def _wait_until(condition: Callable[[], bool], *, becomes: bool = True) -> None:
    deadline = time.monotonic() + _KEEPER_SECONDS
    while condition() != becomes:
        if time.monotonic() > deadline:
            raise TimeoutError("the stack of the test run does not answer")
        time.sleep(0.02)
