"""What lies in the folder: no words and no private key, also after a kill, and none from before."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.whimbrel_client.conftest import People
from tests.whimbrel_client.fake_gateway import FakeGateway, FakeMesh
from tests.whimbrel_client.stored import looked_into
from tests.whimbrel_client.test_crashes import end_of, start
from whimbrel_client import Client, ProfileInUse
from whimbrel_client.payload import text
from whimbrel_client.schema import MIGRATIONS
from whimbrel_client.store import Store

WORDS = "the words that nobody may find"
PRIVATE = (
    "SELECT private FROM device_key",
    "SELECT identity FROM own_identity",
    "SELECT private FROM signed_prekey",
    "SELECT private FROM one_time_prekey",
    "SELECT seed FROM kem_prekey",
    "SELECT record FROM device",
)

ADD_MESSAGE = """
INSERT INTO message (conversation, seq, message_id, sender, sender_device, accepted_at, type,
    ciphertext, content)
VALUES (x'62', ?, x'69', x'62', 1, 5, 2, x'', ?)
"""


def forms(secret: bytes) -> set[bytes]:
    return {secret, secret.hex().encode(), secret.hex().upper().encode()}


def contents_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def places_of(secrets: list[bytes], contents: dict[str, bytes]) -> set[str]:
    """The names of the files in which one of the secrets stands, as bytes or in hex."""
    wanted = set().union(*map(forms, secrets))
    return {name for name, content in contents.items() if any(one in content for one in wanted)}


async def test_no_file_of_a_killed_client_holds_words_or_private_keys(
    people: People, mesh: FakeMesh, gateway: FakeGateway, tmp_path: Path
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    mesh.limits.max_unacked = 10
    async with Client.connect(alice) as sender:
        for message in await sender.send_all("bob", [f"{WORDS} {n}" for n in range(60)]):
            await sender.accepted(message)

    job = ("receive", str(tmp_path / "effects.db"), "60")
    died = await end_of(await start(bob, gateway, "before-ack", *job))
    left = contents_of(bob)
    with looked_into(bob / "store.db") as connection:
        private = [row[0] for query in PRIVATE for row in connection.execute(query)]
        kept = connection.execute("SELECT content FROM message").fetchall()

    assert died == -signal.SIGKILL
    assert left["store.db-wal"]
    assert len(private) > 100
    assert any(WORDS.encode() in content for (content,) in kept)
    assert places_of([WORDS.encode(), *private], left) == set()
    assert places_of([bytes.fromhex(json.loads(left["store.key"])["key"])], left) == {"store.key"}


def left_in_clear(folder: Path) -> Path:
    """A store as an older version left it when it was killed: in the clear, half of it in a log."""
    path = folder / "store.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;")
    for number, script in enumerate(MIGRATIONS, start=1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
    for seq in range(1, 40):
        connection.execute(ADD_MESSAGE, (seq, text(WORDS).SerializeToString()))
    connection.execute("DELETE FROM message WHERE seq = 39")
    left = {file: file.read_bytes() for file in folder.iterdir()}
    connection.close()
    for file, content in left.items():
        file.write_bytes(content)
    assert places_of([WORDS.encode()], contents_of(folder)) == {"store.db-wal"}
    return path


async def assert_is_whole_and_encrypted(path: Path) -> None:
    store = Store(path)
    await store.open()
    messages = await store.messages(0, limit=100)
    await store.close()
    with looked_into(path) as connection:
        sequence = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'")
        # A cursor that was given once is not given to another message.
        assert sequence.fetchone() == (39,)
    assert [message.seq for message in messages] == list(range(1, 39))
    assert {message.text for message in messages} == {WORDS}
    assert places_of([WORDS.encode()], contents_of(path.parent)) == set()
    assert contents_of(path.parent).keys() == {"store.db", "store.key"}
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_store_in_the_clear_is_encrypted_when_it_is_opened(tmp_path: Path) -> None:
    path = left_in_clear(tmp_path)

    await assert_is_whole_and_encrypted(path)


async def test_a_devices_key_that_lies_in_the_clear_is_moved_into_the_store(
    people: People, mesh: FakeMesh
) -> None:
    alice = await people.register("alice")
    with looked_into(alice / "store.db") as connection:
        (raw,) = connection.execute("DELETE FROM device_key RETURNING private").fetchone()
    key = Ed25519PrivateKey.from_private_bytes(raw)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (alice / "device.key").write_bytes(pem)

    for _ in range(2):
        async with Client.connect(alice) as client:
            await client.online()

        assert contents_of(alice).keys() == {"account.json", "store.db", "store.key"}
        assert places_of([raw, pem.splitlines()[1]], contents_of(alice)) == set()


_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from whimbrel_client import rewriting
from whimbrel_client.store import Store

original = rewriting.replace

def replace(draft, path):
    if sys.argv[2] == "after":
        original(draft, path)
    os.kill(os.getpid(), signal.SIGKILL)

rewriting.replace = replace
asyncio.run(Store(Path(sys.argv[1])).open())
"""


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_while_it_is_encrypted_loses_nothing(tmp_path: Path, when: str) -> None:
    path = left_in_clear(tmp_path)

    died = subprocess.run(
        [sys.executable, "-c", _DIE, path, when],
        env={**os.environ, "PYTHONPATH": f".{os.pathsep}gen"},
        cwd=Path(__file__).parents[2],
        check=False,
    )

    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "store.new").exists() == (when == "before")
    in_clear = places_of([WORDS.encode()], contents_of(tmp_path))
    assert in_clear == ({"store.db"} if when == "before" else set())
    await assert_is_whole_and_encrypted(path)


_OLDER = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1])
store.executescript("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;")
print(flush=True)
sys.stdin.read()
"""


async def test_a_store_that_an_older_version_has_open_is_left_alone(tmp_path: Path) -> None:
    path, pipes = left_in_clear(tmp_path), {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

    with subprocess.Popen([sys.executable, "-c", _OLDER, path], **pipes) as older:
        older.stdout.readline()
        with pytest.raises(ProfileInUse):
            await Store(path).open()
        older.communicate()

    await assert_is_whole_and_encrypted(path)


async def test_two_that_open_at_once_make_one_key(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "store.db") for _ in range(4)]

    results = await asyncio.gather(*(one.open() for one in stores), return_exceptions=True)

    refused = [one for one in results if isinstance(one, ProfileInUse)]
    assert len(refused) == 3
    await stores[results.index(None)].close()
    again = Store(tmp_path / "store.db")
    await again.open()
    await again.close()
