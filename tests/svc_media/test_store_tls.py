"""Files through an object store that ends TLS, certified by an authority of the operator's own."""

import os
import shutil
import ssl
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from mesh.authority import Authority
from mesh.clock import SystemClock
from mesh.ids import new_ulid
from mesh.settings import load
from svc_media.objects import ObjectStore, ObjectStoreUnavailable
from svc_media.preparing import prepare
from svc_media.settings import StoreSettings
from svc_media.transport import transport
from tests.stack_keeper import running
from tests.svc_media.conftest import Service, media_id_of
from tests.svc_media.store import settings_of
from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.seaweed import Seaweed
from whimbrel_cli.stack.servers import Server

ANN, BOB = new_ulid(), new_ulid()


class SecureSeaweed(Seaweed):
    """Its S3 is https."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        super().__init__(directory)
        self._ca = authority.ca
        self._certificate, self._key = authority.issue("s3", hosts=[LOOPBACK])

    def command(self, port, log):
        command = super().command(port, log)
        told = [f"-s3.cert.file={self._certificate}", f"-s3.key.file={self._key}"]
        return replace(command, argv=[*command.argv, *told])

    async def answers(self, port: int) -> bool:
        context = ssl.create_default_context(cafile=str(self._ca))
        try:
            async with httpx.AsyncClient(verify=context, trust_env=False) as http:
                s3 = await http.get(f"https://{LOOPBACK}:{port}/healthz")
                volumes = await http.get(f"http://{LOOPBACK}:{self._master_port}/dir/status")
        except httpx.HTTPError:
            return False
        return s3.is_success and b'"DataCenters":[' in volumes.content

    def address(self, port: int) -> str:
        return super().address(port).replace("http://", "https://")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.at(tmp_path_factory.mktemp("authority"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def s3_url(authority, tmp_path_factory):
    directory = tmp_path_factory.mktemp("seaweed")
    recipe = SecureSeaweed(directory / "data", authority)
    async with running(Server(recipe, log=directory / "log")) as server:
        yield server.address


@pytest.fixture
def more_settings(authority) -> dict[str, object]:
    return {"s3_ca": authority.ca}


async def test_a_file_goes_up_and_comes_down_through_tls(service: Service) -> None:
    content = os.urandom(100_000)

    granted = await service.upload(ANN, content)
    url, _ = await service.grants.create_download(BOB, media_id_of(granted))

    assert {httpx.URL(one).scheme for one in (url, granted.puts[0].url)} == {"https"}
    assert (await service.http.get(url)).content == content


async def test_authorities_that_were_exchanged_are_asked_from_then_on(
    s3_url, authority, tmp_path
) -> None:
    ca, told = tmp_path / "ca.pem", settings_of(s3_url)
    shutil.copy(authority.ca, ca)
    settings = StoreSettings(database="x", s3_ca=ca, **told)
    async with httpx.AsyncClient(trust_env=False, transport=transport(ca)) as http:
        objects = ObjectStore(settings.bucket, http, SystemClock())
        await objects.make_bucket(keep=timedelta(days=1))

        shutil.copy(Authority.at(tmp_path / "another").ca, ca)
        with pytest.raises(ObjectStoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await objects.make_bucket(keep=timedelta(days=1))

        shutil.copy(authority.ca, ca)
        await objects.make_bucket(keep=timedelta(days=1))

        with capture_logs() as logs:
            ca.write_text("none")
            await objects.make_bucket(keep=timedelta(days=1))
    assert [one["why"] for one in logs] == [f"{ca} holds no certificate"]


@pytest.mark.parametrize("trusted", ["another", None])
async def test_a_bucket_that_another_authority_certified_is_told_nothing(
    database, s3_url, tmp_path, trusted
) -> None:
    ca = Authority.at(tmp_path / trusted).ca if trusted else None
    told = settings_of(s3_url)
    settings = StoreSettings(database=await database(), s3_ca=ca, **told)

    with pytest.raises(ObjectStoreUnavailable, match="CERTIFICATE_VERIFY_FAILED") as refused:
        await prepare(settings)

    assert told["s3_access_key"] not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "content", "why"),
    [
        ("http://s3", None, "s3_endpoint is not https://"),
        ("https://s3", b"hunter2", "{ca} holds no certificate"),
    ],
)
def test_authorities_that_are_none_or_would_not_be_asked_stop_the_start(
    authority, tmp_path, monkeypatch, capsys, endpoint, content, why
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(content or authority.ca.read_bytes())
    told = {"database": "x", "s3_endpoint": endpoint, "s3_bucket": "b", "s3_ca": ca}
    for name, value in {**told, "s3_access_key": "hunter2", "s3_secret_key": "hunter2"}.items():
        monkeypatch.setenv(f"WHIMBREL_MEDIA_{name.upper()}", str(value))

    with pytest.raises(SystemExit):
        load(StoreSettings)

    assert capsys.readouterr().err == f"WHIMBREL_MEDIA_S3_CA: Value error, {why.format(ca=ca)}\n"
