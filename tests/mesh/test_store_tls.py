"""TLS to Postgres and Redis: what is demanded of the real servers, and shown to them."""

import asyncio
import contextlib
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from pydantic_settings import SettingsConfigDict
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from mesh.errors import Unavailable
from mesh.postgres import DatabaseSettings, fetch, open_pool
from mesh.redis import RedisSettings, open_redis
from mesh.service import ServiceSettings
from mesh.settings import load
from mesh.store_tls import dsn_with
from tests.mesh.certified import Files
from tests.stack_keeper import running
from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.postgres import Postgres
from whimbrel_cli.stack.servers import Server


class SecurePostgres(Postgres):
    """Takes nobody without TLS and a certificate."""

    def __init__(self, directory: Path, files: Files) -> None:
        super().__init__(directory)
        self._files = files

    async def prepare(self) -> None:
        await super().prepare()
        place, owner = self._cluster.directory, self._cluster.owner
        for file, name in zip(
            (self._files.ca, *self._files.server), ("ca.pem", "it.pem", "it-key.pem"), strict=True
        ):
            shutil.copy(file, place / name)
            if owner:
                os.chown(place / name, owner.uid, owner.gid)
        (place / "pg_hba.conf").write_text(
            f"hostssl all all {LOOPBACK}/32 scram-sha-256 clientcert=verify-ca\n"
        )

    def command(self, port, log):
        told = ["ssl=on", "ssl_ca_file=ca.pem", "ssl_cert_file=it.pem", "ssl_key_file=it-key.pem"]
        command = super().command(port, log)
        return replace(command, argv=[*command.argv, *(f"--{one}" for one in told)])

    def address(self, port: int) -> str:
        return dsn_with(self._files.mine, self.plain_address(port))

    def plain_address(self, port: int) -> str:
        return super().address(port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgres(files, tmp_path_factory) -> AsyncIterator[str]:
    """The DSN of a Postgres that insists; it says nothing of TLS."""
    directory = tmp_path_factory.mktemp("postgres")
    recipe = SecurePostgres(directory / "data", files)
    async with running(Server(recipe, log=directory / "log")) as server:
        yield recipe.plain_address(server.port)
    cluster.remove(directory / "data")


async def one(dsn: str) -> int:
    """What the server says to `SELECT 1`."""
    async with open_pool(dsn, size=1, application_name="test") as pool:
        [row] = await fetch(
            pool, "SELECT 1 AS one FROM pg_stat_ssl WHERE ssl AND pid = pg_backend_pid()"
        )
    return row["one"]


async def test_postgres_is_spoken_to_by_whoever_trusts_it_and_has_a_certificate(postgres, files):
    assert await one(dsn_with(files.mine, postgres)) == 1


async def test_a_dsn_may_name_the_files_itself(postgres, files):
    told = f"sslmode=verify-full&sslrootcert={files.ca}"
    shown = f"sslcert={files.mine.certificate}&sslkey={files.mine.key}"
    dsn = f"{postgres}?{told}&{shown}"

    assert dsn_with(files.stranger, dsn) == dsn
    assert await one(dsn) == 1


async def test_a_postgres_that_another_authority_certified_is_told_no_password(postgres, files):
    with capture_logs() as logs:
        async with open_pool(
            dsn_with(files.deceived, postgres), size=1, application_name="test"
        ) as pool:
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await fetch(pool, "SELECT 1")

    [told] = logs
    assert "CERTIFICATE_VERIFY_FAILED" in told["why"]
    assert str(urlsplit(postgres).password) not in str(logs)


async def test_a_postgres_by_another_name_than_its_certificate_has_is_not_believed(postgres, files):
    dsn = dsn_with(files.mine, postgres.replace(LOOPBACK, "localhost"))

    with capture_logs() as logs, pytest.raises(Unavailable):
        await one(dsn)

    assert "Hostname mismatch" in logs[0]["why"]


@pytest.mark.parametrize("mode", ["disable", "require"])
async def test_postgres_refuses_plaintext_and_who_has_no_certificate(postgres, mode):
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await one(f"{postgres}?sslmode={mode}")


async def test_a_postgres_without_tls_is_no_store_for_who_demands_it(stack, files):
    with capture_logs() as logs, pytest.raises(Unavailable):
        await one(dsn_with(files.mine, stack.postgres_dsn))

    assert "rejected SSL upgrade" in logs[0]["why"]


@pytest.fixture
async def rediss(redis_url, files) -> AsyncIterator[str]:
    """The stack's Valkey, which has no TLS, behind an end of TLS that asks for certificates."""
    behind = urlsplit(redis_url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
    context.load_cert_chain(*map(str, files.server))
    context.verify_mode = ssl.CERT_REQUIRED

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection(behind.hostname, behind.port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pump(reader, onward[1]))
            tasks.create_task(_pump(onward[0], writer))

    server = await asyncio.start_server(forward, LOOPBACK, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"rediss://:{behind.password}@{LOOPBACK}:{port}{behind.path}"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while content := await reader.read(65536):
            writer.write(content)
    writer.close()


async def test_redis_is_spoken_to_through_tls_with_a_certificate(rediss, files):
    async with open_redis(rediss, tls=files.mine) as redis:
        await redis.set("key", "value")

        assert await redis.get("key") == b"value"


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("deceived", "CERTIFICATE_VERIFY_FAILED"),
        ("stranger", "CERTIFICATE_VERIFY_FAILED"),
        ("unnamed", ""),
    ],
)
async def test_redis_is_not_spoken_to_unless_both_are_who_they_say(rediss, files, who, why):
    async with open_redis(rediss, tls=getattr(files, who)) as redis:
        with pytest.raises(RedisError) as refused:
            await redis.get("key")

    assert why in str(refused.value)
    assert str(urlsplit(rediss).password) not in str(refused.value)


class Everything(DatabaseSettings, RedisSettings, ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="WHIMBREL_X_")

    listen: str = "127.0.0.1:0"


def _complaints(monkeypatch, capsys, **told: object) -> list[str]:
    base = {"database": "postgresql://user:hunter2@db/x", "tls__insecure": "true"}
    for name, value in {**base, **told}.items():
        monkeypatch.setenv(f"WHIMBREL_X_{name.upper()}", str(value))
    with pytest.raises(SystemExit) as ended:
        load(Everything)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "hunter2" not in said
    return said.splitlines()


def test_all_that_is_wrong_with_files_is_named_at_once(monkeypatch, capsys, files, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("hunter2")

    complaints = _complaints(
        monkeypatch,
        capsys,
        database=f"postgresql://user:hunter2@db/x?sslmode=verify-full&sslrootcert={empty}",
        postgres_tls__ca=empty,
        etcd_tls__ca=tmp_path / "none.pem",
        redis_url="rediss://:hunter2@redis",
        redis_tls__ca=files.ca,
        redis_tls__certificate=files.mine.certificate,
        redis_tls__key=files.stranger.key,
    )

    assert complaints == [
        "WHIMBREL_X_ETCD_TLS__CA: Path does not point to a file",
        f"WHIMBREL_X_REDIS_TLS: Value error, {files.stranger.key} is not the certificate's key",
        f"WHIMBREL_X_DATABASE: Value error, {empty} holds no certificate",
        f"WHIMBREL_X_POSTGRES_TLS: Value error, {empty} holds no certificate",
    ]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["certificate"], "certificate and key go together"),
        (["ca", "key"], "certificate and key go together"),
        (["certificate", "key"], "certificate and key need ca"),
    ],
)
def test_files_that_go_together_are_demanded_together(monkeypatch, capsys, files, given, why):
    told = {f"etcd_tls__{name}": getattr(files.mine, name) for name in given}

    [complaint] = _complaints(monkeypatch, capsys, **told)

    assert complaint == f"WHIMBREL_X_ETCD_TLS: Value error, {why}"


def test_tls_that_a_plain_url_would_not_use_is_refused(monkeypatch, capsys, files):
    [complaint] = _complaints(monkeypatch, capsys, redis_tls__ca=files.ca)

    assert complaint == "WHIMBREL_X_REDIS_TLS: Value error, redis_url is not rediss://"


def test_what_is_no_dsn_is_refused_without_being_quoted(monkeypatch, capsys):
    [complaint] = _complaints(monkeypatch, capsys, database="postgresql://user:hunter2@[db/x")

    assert complaint == "WHIMBREL_X_DATABASE: Value error, it is no URL"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (
            "sslmode=full",
            "sslmode is none of disable, allow, prefer, require, verify-ca, verify-full",
        ),
        ("sslmode=verify-full", "sslmode=verify-full needs sslrootcert"),
        ("sslrootcert=/ca.pem", "sslrootcert proves nothing without sslmode=verify-full"),
        ("sslmode=require&sslcert=/it.pem", "sslcert and sslkey go together"),
    ],
)
def test_a_dsn_that_would_prove_nothing_is_refused(monkeypatch, capsys, query, why):
    dsn = f"postgresql://user:hunter2@db/x?{query}"

    [complaint] = _complaints(monkeypatch, capsys, database=dsn)

    assert complaint == f"WHIMBREL_X_DATABASE: Value error, {why}"
