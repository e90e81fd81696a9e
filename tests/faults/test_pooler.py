"""A mesh whose message instances reach their shards through a real PgBouncer.

It takes the program from the PATH: 1.21 or later.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.e2e.meshes import own_mesh
from tests.faults.town import a_town
from whimbrel_cli.stack.ports import LOOPBACK, free_port

pytestmark = pytest.mark.soak

# By mode: a pooled session belongs to one connection of an instance, a transaction's does not.
_SERVER_CONNECTIONS = {"session": 40, "transaction": 6}
_SESSIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'svc_message' AND datname = current_database()
"""


@pytest.fixture
def bouncer(mode, tmp_path):
    """A PgBouncer before a server: `async with bouncer(dsn) as pooled: pooled(dsn)`."""
    port = free_port()
    program = shutil.which("pgbouncer")
    assert program, "this test needs pgbouncer on the PATH"
    is_root = os.geteuid() == 0

    @contextlib.asynccontextmanager
    async def before(dsn):
        server = urlsplit(dsn)
        config = tmp_path / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"* = host={server.hostname} port={server.port} user={server.username}"
            f" password={server.password or ''}\n"
            "[pgbouncer]\n"
            f"listen_addr = {LOOPBACK}\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = {_SERVER_CONNECTIONS[mode]}\n"
            + ("max_prepared_statements = 200\n" if mode == "transaction" else "")
        )
        config.chmod(0o644)
        process = await asyncio.create_subprocess_exec(
            program, *(["-u", "nobody"] if is_root else []), "-q", config
        )
        try:
            yield lambda dsn: urlunsplit(
                urlsplit(dsn)._replace(netloc=f"postgres@{LOOPBACK}:{port}")
            )
        finally:
            process.kill()  # asked to end, it would wait for its clients
            await process.wait()

    return before


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_messages_pass_a_pooler_and_instances_that_die(bouncer, mode, tmp_path) -> None:
    async with own_mesh() as mesh, bouncer(next(iter(mesh.shards.values()))) as pooled:
        files = {
            "WHIMBREL_MESSAGE_SHARDS": {name: pooled(dsn) for name, dsn in mesh.shards.items()},
            "WHIMBREL_MESSAGE_DIRECT_SHARDS": mesh.shards,
        }
        env = {name: str(tmp_path / f"{name}.json") for name in files}
        for name, shards in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(shards))
        migrate = [sys.executable, "-m", "svc_message", "migrate"]
        subprocess.run(migrate, check=True, env={**os.environ, **env})
        for name in ("message-1", "message-2"):
            await mesh.stop(name)
            await mesh.start(name, env=env)

        async with a_town(mesh, people=6) as town:
            town.write(600)
            mesh.kill("message-1")
            await mesh.ended("message-1")
            await mesh.start("message-1")
            town.write(600)
            await town.settled()
        await town.check(longest_wait=10)

        for dsn in mesh.shards.values():
            connection = await asyncpg.connect(dsn)
            assert 0 < await connection.fetchval(_SESSIONS) <= _SERVER_CONNECTIONS[mode]
            await connection.close()
        await mesh.stop("message-2")
