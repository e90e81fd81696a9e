"""TLS to etcd: what is demanded of the real one, shown to it, and renewed while it is spoken to."""

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from structlog.testing import capture_logs
from typer.testing import CliRunner

from mesh.discovery import Discovery
from mesh.errors import Unavailable
from mesh.instances import Instance
from mesh.store_tls import StoreTls
from tests.mesh.certified import Files
from tests.stack_keeper import running
from whimbrel_cli.admin import admin
from whimbrel_cli.stack.etcd import Etcd
from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.servers import Server

INSTANCE = Instance("i1", "svc_message", "127.0.0.1:1", "zone-a", "1.0")


class SecureEtcd(Etcd):
    """Takes nobody without TLS and a certificate."""

    def __init__(self, directory: Path, files: Files) -> None:
        super().__init__(directory)
        self._files = files

    def command(self, port, log):
        command = super().command(port, log)
        plain, secure = f"http://{LOOPBACK}:{port}", f"https://{LOOPBACK}:{port}"
        certificate, key = self._files.server
        told = [
            f"--cert-file={certificate}",
            f"--key-file={key}",
            f"--trusted-ca-file={self._files.ca}",
            "--client-cert-auth",
        ]
        return replace(command, argv=[*(a.replace(plain, secure) for a in command.argv), *told])

    async def answers(self, port: int) -> bool:
        context = ssl.create_default_context(cafile=str(self._files.ca))
        context.load_cert_chain(str(self._files.mine.certificate), str(self._files.mine.key))
        try:
            async with httpx.AsyncClient(verify=context, trust_env=False) as http:
                answer = await http.get(f"https://{LOOPBACK}:{port}/health")
        except httpx.HTTPError:
            return False
        return b'"health":"true"' in answer.content


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def etcd(files, tmp_path_factory) -> AsyncIterator[str]:
    directory = tmp_path_factory.mktemp("etcd")
    recipe = SecureEtcd(directory / "data", files)
    async with running(Server(recipe, log=directory / "log")) as server:
        yield server.address


async def test_an_instance_registers_in_an_etcd_that_knows_it_by_certificate(etcd, files):
    async with Discovery(etcd, tls=files.mine) as here, Discovery(etcd, tls=files.mine) as there:
        view, seen = there.watch("svc_message"), asyncio.Event()
        view.on_change(lambda instances: seen.set() if instances else None)

        here.register(INSTANCE)

        async with asyncio.timeout(20):
            await seen.wait()
        assert view.instances == {"i1": INSTANCE}


@pytest.mark.parametrize("who", ["deceived", "unnamed", "stranger", None])
async def test_etcd_is_not_spoken_to_unless_both_are_who_they_say(etcd, files, who):
    tls = getattr(files, who) if who else StoreTls()
    lost = asyncio.Event()

    with capture_logs() as logs:
        async with Discovery(
            etcd, tls=tls, timeout=timedelta(seconds=5), on_reachable=lambda _: lost.set()
        ) as discovery:
            view = discovery.watch("svc_message")
            async with asyncio.timeout(20):
                await lost.wait()
            assert not view.synced.is_set()

    [told] = [one for one in logs if "why" in one]
    assert told["why"].startswith("UNAVAILABLE")
    if who in ("deceived", "stranger"):
        assert "CERTIFICATE_VERIFY_FAILED" in told["why"]


@pytest.fixture
def held(tmp_path: Path) -> StoreTls:
    """Where an instance's files are: a test puts others' there."""
    return StoreTls.model_construct(
        ca=tmp_path / "ca.pem", certificate=tmp_path / "it.pem", key=tmp_path / "it-key.pem"
    )


def _put(held: StoreTls, others: StoreTls) -> None:
    for place, file in zip(held.files, others.files, strict=True):
        shutil.copy(file, place.with_suffix(".new"))
        place.with_suffix(".new").replace(place)


async def test_an_instance_that_etcd_refused_is_let_in_with_new_files(etcd, files, held):
    _put(held, files.stranger)
    lost = asyncio.Event()

    async with Discovery(
        etcd, tls=held, prefix="/let-in", on_reachable=lambda is_well: is_well or lost.set()
    ) as discovery:
        discovery.register(INSTANCE)
        async with asyncio.timeout(20):
            await lost.wait()
        assert not discovery.registered.is_set()

        _put(held, files.mine)

        async with asyncio.timeout(20):
            await discovery.registered.wait()


async def test_new_files_are_used_for_new_calls_to_etcd_and_a_watch_goes_on(etcd, files, held):
    _put(held, files.mine)

    async with (
        Discovery(etcd, tls=held, prefix="/goes-on") as here,
        Discovery(etcd, tls=files.mine, prefix="/goes-on") as there,
    ):
        view, seen = here.watch_value("value"), asyncio.Event()
        view.on_change(lambda value: seen.set() if value == b"new" else None)
        async with asyncio.timeout(20):
            await view.synced.wait()
        await here.put_value("value", b"old")

        _put(held, files.stranger)

        with pytest.raises(Unavailable):
            await here.put_value("value", b"never")
        await there.put_value("value", b"new")
        async with asyncio.timeout(20):
            await seen.wait()


async def test_files_for_etcd_that_are_not_good_are_left_alone(etcd, files, held):
    _put(held, files.mine)

    async with Discovery(etcd, tls=held, prefix="/left-alone") as here:
        with capture_logs() as logs:
            held.key.write_text("hunter2")
            await here.put_value("value", b"1")
            await here.put_value("value", b"2")

    [told] = logs
    assert told["event"] == "certificates are not good: going on with the old ones"
    assert told["why"] == f"{held.key} holds no private key"


async def test_a_connection_to_etcd_that_has_ended_is_closed_when_files_are_renewed(files, held):
    _put(held, files.mine)

    # Nobody listens there: each of the connections is idle.
    async with Discovery("127.0.0.1:1", tls=held) as discovery:
        made = [await discovery._etcd._connection()]
        for others in (files.stranger, files.mine):
            _put(held, others)
            made.append(await discovery._etcd._connection())

        assert len(set(map(id, made))) == 3
        assert discovery._etcd._connections == made[-1:]


def test_an_operator_shows_a_certificate_to_etcd_too(etcd, files):
    trusting = ["limits", "--etcd", etcd, "--etcd-ca", str(files.ca)]
    showing = ["--etcd-certificate", str(files.mine.certificate)]
    ours = [*trusting, *showing, "--etcd-key", str(files.mine.key)]
    theirs = [*trusting, *showing, "--etcd-key", str(files.stranger.key)]

    seen = CliRunner().invoke(admin, [*ours, "--json"])
    refused = CliRunner().invoke(admin, theirs)

    assert "sends" in json.loads(seen.stdout)
    assert refused.exit_code == 1
    assert "is not the certificate's key" in refused.stderr
