"""`whimbrel up` and `whimbrel status`, as a person runs them."""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
import pytest

from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.programs import Command, Program, State

_WHIMBREL = str(Path(sys.executable).parent / "whimbrel")
_OURS = {"gateway-1", "media-1", "message-1", "presence-1", "push-1", "push-providers"}
# What a test leaves out that looks at other processes only.
_NOT_LOOKED_AT = ("presence", "push", "media")
_PROCESSES = {"postgres", "valkey", "etcd", "seaweed", *_OURS}

pytestmark = pytest.mark.timeout(180)


class Up:
    """A running `whimbrel up` and what it has printed."""

    def __init__(self, data: Path, log: Path, env: dict[str, str], without: Sequence[str]) -> None:
        sizes = ["--gateways", "1", "--message", "1", "--shards", "2"]
        none = [word for service in without for word in (f"--{service}", "0")]
        argv = [_WHIMBREL, "up", *sizes, *none, "--data", str(data)]
        self.program = Program(Command("up", argv, log, env=env))
        self.data = data

    @property
    def printed(self) -> str:
        return self.program.log.read_text()

    @property
    def pids(self) -> dict[str, int]:
        ready = re.findall(r"^(\S+) +ready, pid (\d+)", self.printed, re.MULTILINE)
        return {name: int(pid) for name, pid in ready}

    async def until_printed(self, text: str) -> None:
        async def is_printed() -> bool:
            return text in self.printed

        await self.program.until_ready(is_printed, seconds=60)


@contextlib.asynccontextmanager
async def _up(
    data: Path, log: Path, env: dict[str, str] | None = None, *, without: Sequence[str] = ()
) -> AsyncIterator[Up]:
    up = Up(data, log, env or {}, without)
    up.program.start()
    try:
        await up.until_printed("The mesh is up")
        yield up
    finally:
        await up.program.stop()


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path / "data"
    cluster.remove(tmp_path / "data" / "postgres")


async def test_a_mesh_comes_up_is_seen_and_goes_down_whole(data, tmp_path) -> None:
    async with _up(data, tmp_path / "up.log") as up:
        pids = up.pids
        description = data / "mesh.json"
        assert set(pids) == _PROCESSES
        assert stat.S_IMODE(description.stat().st_mode) == 0o600

        seen = json.loads(_run("status", "--json", "--data", str(data)).stdout)
        table = _run("status", "--data", str(data)).stdout

    assert {one["service"] for one in seen["instances"]} == {"gateway", "message"}
    assert seen["slots"] == {"shard-0": {"owned": 8192}, "shard-1": {"owned": 8192}}
    assert seen["sessions"] == {}
    assert "8,192 owned" in table
    assert "sessions: 0" in table
    assert up.program.exit_code == 0
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert not description.exists()


async def test_a_process_that_dies_is_shown_and_not_restarted(data, tmp_path) -> None:
    async with _up(data, tmp_path / "up.log", without=_NOT_LOOKED_AT) as up:
        os.kill(up.pids["gateway-1"], signal.SIGKILL)
        await up.until_printed("gateway-1    dead, exit code -9")

        assert str(data / "logs" / "gateway-1.log") in up.printed
        assert up.printed.count("gateway-1    starting") <= 1


async def test_a_mesh_whose_supervisor_was_killed_comes_up_again(data, tmp_path) -> None:
    async with _up(data, tmp_path / "first.log") as first:
        first.program.kill(signal.SIGKILL)
        await first.program.ended()

    async with _up(data, tmp_path / "second.log") as second:
        assert set(second.pids) == _PROCESSES


async def test_data_that_a_mesh_uses_is_refused_to_a_second_one(data, tmp_path) -> None:
    async with _up(data, tmp_path / "up.log", without=_NOT_LOOKED_AT) as up:
        second = _run("up", "--data", str(data))

    assert second.returncode == 1
    assert f"in use by a mesh that is up (pid {up.program.pid})" in second.stderr


async def test_servers_that_are_there_are_used_and_left_alone(
    data, tmp_path, own_postgres, own_valkey, own_etcd, s3_url
) -> None:
    env = {
        "WHIMBREL_STACK_POSTGRES_DSN": own_postgres.address,
        "WHIMBREL_STACK_REDIS_URL": own_valkey.address,
        "WHIMBREL_STACK_ETCD_ENDPOINT": own_etcd.address,
        "WHIMBREL_STACK_S3_URL": s3_url,
    }

    async with _up(data, tmp_path / "up.log", env) as up:
        assert set(up.pids) == _OURS
        assert "an existing one" in up.printed
        seen = json.loads(_run("status", "--json", "--data", str(data)).stdout)

    assert sum(slots["owned"] for slots in seen["slots"].values()) == 16_384
    for server in (own_postgres, own_valkey, own_etcd):
        assert server.status().state is State.READY


def test_wrong_settings_are_all_named_and_end_the_start(data) -> None:
    env = {"WHIMBREL_STACK_POSTGRES_PORT": "many", "WHIMBREL_STACK_REDIS_PROT": "6379"}

    refused = _run("up", "--data", str(data), env=env)

    assert refused.returncode == 2
    assert "WHIMBREL_STACK_POSTGRES_PORT" in refused.stderr
    assert "WHIMBREL_STACK_REDIS_PROT" in refused.stderr
    assert not data.exists()


def test_no_mesh_means_no_status(tmp_path) -> None:
    refused = _run("status", "--data", str(tmp_path))

    assert refused.returncode == 1
    assert "`whimbrel up` brings one up" in refused.stderr


def _run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_WHIMBREL, *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
