"""How a client comes to a gateway by TLS, and what it is told when it cannot."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.authority import Authority
from mesh.tls import ClientListener, ListenerSettings
from tests.whimbrel_client.fake_gateway import FakeGateway, FakeMesh, running_gateway
from whimbrel_client import BadAddress, Client, Unreachable
from whimbrel_client.grpc_channel import addressed, explained
from whimbrel_client.profile import Account, Profile, gateways_of


def credentials(directory: Path, host: str = "127.0.0.1"):
    certificate, key = Authority.at(directory).issue("gateway", hosts=[host])
    return ClientListener(ListenerSettings(certificate=certificate, key=key)).server_credentials()


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    return Authority.at(tmp_path / "authority").ca


@pytest.fixture
async def secure(mesh: FakeMesh, ca: Path) -> AsyncIterator[FakeGateway]:
    async with running_gateway(mesh, credentials=credentials(ca.parent)) as gateway:
        yield gateway


async def told(tmp_path: Path, *gateways: str, ca: Path | None = None) -> str:
    with pytest.raises(Unreachable) as unreachable:
        await Client.register(tmp_path / "nobody", "nobody", gateways=gateways, ca=ca)
    return str(unreachable.value)


async def test_whoever_registers_by_tls_comes_by_tls_ever_after(tmp_path, mesh, secure, ca):
    profile = tmp_path / "alice"
    account = await Client.register(profile, "alice", gateways=[secure.address], ca=ca)
    ca.unlink()  # it was kept

    assert account.gateways == (f"https://{secure.address}",)
    assert Profile(profile).account() == account
    async with Client.connect(profile) as client:
        await client.online()
        assert client.gateway == f"https://{secure.address}"
    async with Client.connect(profile, gateways=[secure.address]) as client:
        await client.online()
        assert client.gateway == f"https://{secure.address}"


async def test_a_certificate_of_an_unknown_authority_is_refused_and_told(tmp_path, secure):
    other = Authority.at(tmp_path / "other").ca

    for ca in (None, other):
        why = await told(tmp_path, f"https://{secure.address}", ca=ca)
        assert f"https://{secure.address}: its certificate is of no authority" in why


async def test_a_certificate_of_another_host_is_refused_and_told(tmp_path, mesh, ca):
    async with running_gateway(mesh, credentials=credentials(ca.parent, "elsewhere")) as gateway:
        why = await told(tmp_path, gateway.address, ca=ca)

    assert f"https://{gateway.address}: its certificate is of another host" in why


async def test_one_side_without_tls_is_told_to_try_the_other_way(tmp_path, secure, gateway, ca):
    clear_to_secure = await told(tmp_path, secure.address)
    secure_to_clear = await told(tmp_path, gateway.address, ca=ca)

    assert f"does it want TLS, https://{secure.address}?" in clear_to_secure
    assert f"https://{gateway.address}: it speaks no TLS" in secure_to_clear


def test_what_is_not_tls_stays_in_the_words_of_grpc():
    assert explained("https://a:1", "Connection refused") == "Connection refused"
    assert explained("a:1", "Connection refused") == "Connection refused"


@pytest.mark.parametrize(
    ("given", "by_tls", "kept"),
    [
        ("a:1", False, "a:1"),
        ("a:1", True, "https://a:1"),
        ("https://a:1/", False, "https://a:1"),
        ("http://a:1", True, "a:1"),
        ("[::1]:1", True, "https://[::1]:1"),
    ],
)
def test_an_address_says_how_it_is_reached(given, by_tls, kept):
    assert addressed([given], by_tls=by_tls) == (kept,)


@pytest.mark.parametrize("given", ["", "https://", "ftp://a:1", "https://a:1/path"])
def test_what_is_no_address_is_refused_with_what_is(given):
    with pytest.raises(BadAddress, match="host:port"):
        addressed([given], by_tls=False)


@pytest.mark.parametrize("kept", [("https://a:1",), ("a:1",)])
def test_nobody_who_came_by_tls_falls_back_to_the_clear_unasked(kept):
    by_ca = Account("alice", b"a" * 16, 1, kept, "PEM")
    by_the_worlds = Account("alice", b"a" * 16, 1, ("https://a:1",))

    for account in (by_ca, by_the_worlds):
        assert gateways_of(["b:1"], account, "") == ("https://b:1",)
        assert gateways_of(["http://b:1"], account, "") == ("b:1",)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_bad_file_of_authorities_is_named(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(BadAddress, match=str(file)):
        await Client.register(tmp_path / "alice", "alice", gateways=["a:1"], ca=file)
