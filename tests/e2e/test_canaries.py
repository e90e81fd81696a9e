"""The server never holds what people say, nor a private key: a whole run is searched for both."""

import secrets
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.meshes import own_mesh
from tests.whimbrel_client.stored import looked_into
from tests.whimbrel_client.test_talking import received
from whimbrel.content.v1.content_pb2 import Content, Location
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client
from whimbrel_client.payload import edit, reply

_COLUMNS = """
SELECT format('SELECT %I::text FROM %I.%I', column_name, table_schema, table_name)
FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'
"""
_PRIVATE = (
    "SELECT private FROM device_key",
    "SELECT identity FROM own_identity",
    "SELECT private FROM signed_prekey",
    "SELECT private FROM one_time_prekey ORDER BY id LIMIT 2",
    "SELECT seed FROM kem_prekey ORDER BY id LIMIT 2",
)


@pytest.mark.timeout(240)
async def test_no_table_no_log_and_no_file_of_a_run_holds_words_or_private_keys(
    tmp_path: Path,
) -> None:
    said = [f"canary{secrets.token_hex(8)}" for _ in range(6)]
    async with own_mesh() as mesh:
        profiles = await talk(mesh, tmp_path, said)
        private = [key for profile in profiles for key in private_keys(profile)]
        needles = [*(word.encode() for word in said), *private]
        public, address = await public_key(profiles[0]), mesh.gateway_addresses[0].encode()

        stored = await found_in_tables(mesh, [*needles, public])
        written = found_in_files(mesh.data, [*needles, address])

    # The public key and the address are where they belong: the search finds what is there.
    assert stored == {public}
    assert written == {address}


async def talk(mesh: Mesh, folder: Path, said: list[str]) -> list[Path]:
    """Two people say everything, in every way; returns their profiles."""
    handles = [f"p{secrets.token_hex(8)}" for _ in range(2)]
    profiles = [folder / handle for handle in handles]
    for profile, handle in zip(profiles, handles, strict=True):
        await Client.register(profile, handle, gateways=mesh.gateway_addresses)
    place = Content(location=Location(name=said[2]))
    async with Client.connect(profiles[0]) as one, Client.connect(profiles[1]) as other:
        first, *_ = await one.send_all(handles[1], [said[0], said[1], place])
        hello, *_ = await received(other, 3)
        await other.send_all(handles[0], [reply(hello, said[3]), said[4]])
        await received(one, 2)
        await one.send(handles[1], edit(first, said[5]))
        await received(other, 4)
    async with Client.connect(profiles[0]) as one:
        # What stays in a queue of the server is searched as well.
        await one.accepted(await one.send(handles[1], said[0]))
    return profiles


def private_keys(profile: Path) -> list[bytes]:
    with looked_into(profile / "store.db") as connection:
        return [row[0] for query in _PRIVATE for row in connection.execute(query)]


async def public_key(profile: Path) -> bytes:
    async with Client.connect(profile, gateways=["127.0.0.1:1"]) as client:
        keys = await client._parts.store.keys.own_keys()
    return keys.device.identity.public


async def found_in_tables(mesh: Mesh, needles: Iterable[bytes]) -> set[bytes]:
    """Which of the needles stand in any column of any shard, as text or as bytes in hex."""
    found: set[bytes] = set()
    for dsn in mesh.shards.values():
        connection = await asyncpg.connect(dsn)
        try:
            for (query,) in await connection.fetch(_COLUMNS):
                rows = await connection.fetch(query)
                column = "\n".join(row[0] or "" for row in rows)
                found |= {needle for needle in needles if stands_in(needle, column)}
        finally:
            await connection.close()
    return found


def stands_in(needle: bytes, text: str) -> bool:
    return needle.hex() in text or needle.decode("latin-1") in text


def found_in_files(folder: Path, needles: Iterable[bytes]) -> set[bytes]:
    """Which of the needles stand in a log, or in any other file of the mesh."""
    wanted = [(needle, form) for needle in needles for form in (needle, needle.hex().encode())]
    found: set[bytes] = set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_socket():
            content = path.read_bytes()
            found |= {needle for needle, form in wanted if form in content}
    return found
