"""Certificates: who gets in, what is refused at the start, and their renewal under open streams."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from mesh.access import AccessInterceptor
from mesh.authority import Authority
from mesh.channels import Channels
from mesh.instances import Instance
from mesh.server import INTERNAL_LISTENER, bind, new_server, running
from mesh.tls import ClientListener, Identity, ListenerSettings, TlsSettings, peer_of
from tests.tls import identity

ECHO = "/test.Test/StreamStream"


class Renewable:
    """An identity whose files a test exchanges."""

    def __init__(self, directory, name: str) -> None:
        self.authority = Authority.at(directory / "authority")
        self.directory = directory / name
        self.name = name
        self.issue()
        self.settings = TlsSettings(
            certificate=self.directory / f"{name}.pem",
            key=self.directory / f"{name}-key.pem",
            ca=self.authority.ca,
        )
        self.identity = Identity(self.settings, name)

    def issue(self, **options) -> None:
        self.authority.issue(self.name, into=self.directory, **options)


class _Echo(grpc.GenericRpcHandler):
    def service(self, _details):
        async def echo(_request, context):
            while (said := await context.read()) is not grpc.aio.EOF:
                await context.write(peer_of(context, is_secure=True).encode() + b":" + said)

        return grpc.stream_stream_rpc_method_handler(echo)


@pytest.fixture
async def listening(tmp_path):
    """The renewable identity of a callee, and the address where it echoes."""
    callee = Renewable(tmp_path, "callee")
    server = new_server(INTERNAL_LISTENER)
    server.add_generic_rpc_handlers((_Echo(),))
    address = bind(server, "127.0.0.1:0", callee.identity.server_credentials())
    async with running(server, timedelta()):
        yield callee, address


async def say(call, words: bytes) -> bytes:
    async with asyncio.timeout(5):
        await call.write(words)
        return await call.read()


async def test_a_caller_is_who_its_certificate_says(listening, tmp_path):
    _, address = listening
    caller = Renewable(tmp_path, "billing")

    async with caller.identity.channel(address, "callee") as channel:
        assert await say(channel.stream_stream(ECHO)(), b"a") == b"billing:a"


async def test_what_a_caller_says_of_itself_counts_for_nothing_with_tls(listening, tmp_path):
    _, address = listening
    caller = Renewable(tmp_path, "billing")
    lies = [("grpc.primary_user_agent", "gateway.whimbrel")]

    async with caller.identity.channel(address, "callee", options=lies) as channel:
        assert await say(channel.stream_stream(ECHO)(), b"a") == b"billing:a"


async def test_new_certificates_are_used_by_new_connections_and_no_stream_ends(listening, tmp_path):
    callee, address = listening
    caller = Renewable(tmp_path, "caller")
    channels = Channels(caller.identity)
    channels.update({"one": Instance("one", "callee", address)})
    old_channel = channels.channel("one")
    old = old_channel.stream_stream(ECHO)()
    assert await say(old, b"1") == b"caller:1"

    # Another authority altogether, which both sides take: old certificates would not do.
    callee.authority.ca.unlink()
    again = Authority.at(tmp_path / "authority")
    for one in (callee, caller):
        again.issue(one.name, into=one.directory)
        await one.identity.look()
    new_channel = channels.channel("one")
    new = new_channel.stream_stream(ECHO)()

    assert new_channel is not old_channel
    assert await say(new, b"2") == b"caller:2"
    assert await say(old, b"3") == b"caller:3"
    late = identity(tmp_path / "late", "caller")
    late_channel = late.channel(address, "callee")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await late_channel.unary_unary("/x/y")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await late_channel.close()
    await channels.close()


@pytest.mark.parametrize("what", ["garbage", "another key", "expired", "another name", "gone"])
async def test_a_bad_file_is_left_alone_counted_and_the_old_one_goes_on(listening, tmp_path, what):
    callee, address = listening
    counted = []
    callee.identity._renewing._refused = type(
        "C", (), {"add": lambda _self, n: counted.append(n)}
    )()
    if what == "garbage":
        callee.settings.certificate.write_text("none")
    elif what == "another key":
        callee.authority.issue("other", into=callee.directory)
        (callee.directory / "other-key.pem").replace(callee.settings.key)
    elif what == "expired":
        callee.issue(lifetime=timedelta(minutes=-1))
    elif what == "another name":
        callee.authority.issue("other", into=callee.directory)
        (callee.directory / "other-key.pem").replace(callee.settings.key)
        (callee.directory / "other.pem").replace(callee.settings.certificate)
    else:
        callee.settings.certificate.unlink()

    await callee.identity.look()
    await callee.identity.look()

    assert counted == [1]
    caller = Renewable(tmp_path, "caller")
    async with caller.identity.channel(address, "callee") as channel:
        assert await say(channel.stream_stream(ECHO)(), b"a") == b"caller:a"
    callee.issue()
    await callee.identity.look()
    assert counted == [1]


def test_without_certificates_plaintext_must_be_asked_for():
    assert "insecure=true" in TlsSettings().problems("x")[0]
    assert TlsSettings(insecure=True).problems("x") == []


def test_what_is_wrong_with_certificates_is_told_and_nothing_of_them(tmp_path):
    made = Renewable(tmp_path, "message")
    other = Renewable(tmp_path, "push")

    assert made.settings.problems("message") == []
    assert "is not of push.whimbrel" in made.settings.problems("push")[0]
    mixed = made.settings.model_copy(update={"key": other.settings.key})
    assert "is not the certificate's key" in mixed.problems("message")[0]
    assert made.settings.key.read_text() not in repr(made.identity._certificates)
    assert made.settings.key.stat().st_mode & 0o077 == 0


def test_a_listener_for_clients_needs_both_files_or_none_and_good_ones(tmp_path):
    made, other = Renewable(tmp_path, "gateway"), Renewable(tmp_path, "other")
    files = {"certificate": made.settings.certificate, "key": made.settings.key}

    assert ListenerSettings().problems() == ListenerSettings(**files).problems() == []
    assert not ClientListener(ListenerSettings()).is_secure
    for name, path in files.items():
        assert "go together" in ListenerSettings(**{name: path}).problems()[0]
    mixed = ListenerSettings(certificate=files["certificate"], key=other.settings.key)
    assert "is not the certificate's key" in mixed.problems()[0]
    made.issue(lifetime=timedelta(minutes=-1))
    assert "has expired" in ListenerSettings(**files).problems()[0]


def test_an_identity_without_files_is_no_plaintext():
    with pytest.raises(ValueError, match="certificate and key go together"):
        Identity(TlsSettings(), "gateway")


async def test_a_method_without_a_proto_that_names_its_callers_is_refused_to_everybody(serve, call):
    channel = await serve(_tell, interceptors=[AccessInterceptor(is_secure=False)])

    for shape in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"):
        error = await call(channel, shape)

        assert error.code() == grpc.StatusCode.PERMISSION_DENIED


async def _tell(_request, context):
    await context.write(b"in")
