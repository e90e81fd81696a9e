import os
import socket
from pathlib import Path

import asyncpg
import pytest

from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.errors import DataGone, InUse, PortTaken
from whimbrel_cli.stack.etcd import Etcd
from whimbrel_cli.stack.ports import LOOPBACK, free_port
from whimbrel_cli.stack.postgres import Postgres, ensure_database
from whimbrel_cli.stack.programs import Command, Owner, Program, State
from whimbrel_cli.stack.servers import Server
from whimbrel_cli.stack.valkey import Valkey


async def _written(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        await connection.execute("INSERT INTO kept SELECT count(*) FROM kept")
        return [row["n"] for row in await connection.fetch("SELECT n FROM kept ORDER BY n")]
    finally:
        await connection.close()


async def test_postgres_keeps_its_port_and_what_was_committed_over_a_kill(own_postgres) -> None:
    address = own_postgres.address
    await _written(address)

    await own_postgres.kill()
    assert own_postgres.status().state is State.DEAD
    await own_postgres.start()

    assert own_postgres.address == address
    assert await _written(address) == [0, 1]


async def test_a_lock_file_that_names_a_strange_process_is_cleared(own_postgres, tmp_path) -> None:
    directory = _cluster_directory(tmp_path / "postgres")
    owner = directory.stat()
    # Of the same user, or Postgres would see by itself that it is no server.
    stranger = Program(
        Command(
            "stranger",
            ["/bin/sleep", "60"],
            tmp_path / "log",
            owner=Owner(owner.st_uid, owner.st_gid),
        )
    )
    await own_postgres.kill()
    stranger.start()
    lock = directory / "postmaster.pid"
    lines = lock.read_text().split("\n")
    lock.write_text("\n".join([str(stranger.pid), *lines[1:]]))

    await own_postgres.start()

    assert own_postgres.status().state is State.READY
    assert stranger.is_running
    await stranger.stop()


async def test_data_in_use_by_another_server_is_left_alone(
    own_postgres, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(cluster, "_ORPHAN_SECONDS", 0.1)
    second = Server(Postgres(tmp_path / "postgres"), log=tmp_path / "second.log")

    with pytest.raises(InUse, match=f"pid {own_postgres.program.pid}"):
        await second.start()

    assert own_postgres.status().state is State.READY


async def test_postgres_data_that_is_gone_is_not_made_anew(tmp_path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root keeps the data elsewhere")
    (tmp_path / "home").write_text(str(tmp_path / "nowhere"))

    with pytest.raises(DataGone, match="nowhere"):
        await Postgres(tmp_path).prepare()


@pytest.mark.parametrize("recipe", [Postgres, Valkey, Etcd])
async def test_a_port_that_was_asked_for_and_is_taken_is_named(recipe, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind((LOOPBACK, free_port()))
        holder.listen()
        port = holder.getsockname()[1]
        server = Server(recipe(tmp_path / "data"), log=tmp_path / "log", port=port)

        with pytest.raises(PortTaken, match=str(port)):
            await server.start()

    cluster.remove(tmp_path / "data")


async def test_valkey_forgets_and_keeps_its_password(own_valkey) -> None:
    address = own_valkey.address

    await own_valkey.kill()
    await own_valkey.start()

    assert own_valkey.address == address


async def test_etcd_comes_back_after_a_kill(own_etcd) -> None:
    endpoint = own_etcd.address

    await own_etcd.kill()
    await own_etcd.start()

    assert own_etcd.address == endpoint


async def test_a_database_is_made_once(own_postgres) -> None:
    first = await ensure_database(own_postgres.address, "shard_0")
    await _written(first)

    second = await ensure_database(own_postgres.address, "shard_0")

    assert second == first
    assert await _written(second) == [0, 1]


async def test_no_password_shows_in_the_process_list(own_postgres, own_valkey) -> None:
    for server in (own_postgres, own_valkey):
        command_line = Path(f"/proc/{server.program.pid}/cmdline").read_text()

        password = server.address.split("@")[0].rpartition(":")[2]
        assert password
        assert password not in command_line


def _cluster_directory(kept_under: Path) -> Path:
    home = kept_under / "home"
    return Path(home.read_text() if home.exists() else kept_under) / "cluster"
