"""Every rpc of every proto, by every wrong caller: nobody gets in whom the proto does not name."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from mesh.access import REFLECTION, Access, Caller, access_of
from mesh.health import check
from mesh.ids import new_ulid, ulid_text
from mesh.keys import KeySet
from tests.e2e.device import reason_of
from tests.e2e.meshes import lasting_mesh
from tests.e2e.people import Account, register
from tests.e2e.test_tokens import FORGERIES, bearer, claims_of, signed, token_keys  # noqa: F401
from tests.requests import SERVICES, filled
from tests.tls import calling_as, identity
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.ports import LOOPBACK, free_port

Pair = tuple[Account, Account]
_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


ACCESSES = {name: access for service in SERVICES for name, access in access_of(service).items()}
RPCS = {
    f"/{service.full_name}/{method.name}": method
    for service in SERVICES
    for method in service.methods
}


async def outcome(
    channel: grpc.aio.Channel, method: MethodDescriptor, name: str, metadata: Any
) -> tuple[Any, str]:
    """The status and the reason that a call ends with; its request is within its bounds."""
    try:
        if method.client_streaming:
            stream: Any = channel.stream_stream(name)(metadata=metadata, timeout=5)
            await stream.read()
            return await stream.code(), ""
        unary: Any = channel.unary_unary(name)
        request = filled(method.input_type).SerializeToString()
        await unary(request, metadata=metadata, timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code(), reason_of(error)
    return grpc.StatusCode.OK, ""


def test_every_rpc_says_who_may_call_it() -> None:
    assert len(SERVICES) > 5
    assert RPCS.keys() == ACCESSES.keys()
    for name, access in ACCESSES.items():
        assert access.callers, name
        assert (Caller.SERVICE in access.callers) == bool(access.services), name
        assert access.answered_by or name.startswith("/whimbrel.gateway."), name


async def test_at_a_gateway_no_rpc_takes_a_bad_token(
    mesh: Mesh,
    pair: Pair,
    token_keys: KeySet,  # noqa: F811
) -> None:
    user = ulid_text(pair[0].user_id)
    forged = {kind: bearer(forge(token_keys, user)) for kind, (forge, _) in FORGERIES.items()}
    bad = {"none": (), **forged}

    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        for name, access in ACCESSES.items():
            if Caller.DEVICE not in access.callers:
                continue
            for kind, metadata in bad.items():
                code, _ = await outcome(channel, RPCS[name], name, metadata)
                assert code is _UNAUTHENTICATED, (name, kind)


async def test_at_a_gateway_what_is_not_for_devices_is_not_there(mesh: Mesh, pair: Pair) -> None:
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        for name, access in ACCESSES.items():
            if not access.is_for_clients:
                ended = await outcome(channel, RPCS[name], name, pair[0].metadata)
                assert ended == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN"), name


async def test_a_credential_that_was_replaced_changes_nothing_and_tells_nothing(
    mesh: Mesh,
    token_keys: KeySet,  # noqa: F811
) -> None:
    """A good token of a device that is not linked, and of a credential before the account's."""
    account = await register(mesh.gateway_addresses[0])
    user = ulid_text(account.user_id)

    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        for name, access in ACCESSES.items():
            if Caller.DEVICE not in access.callers or RPCS[name].client_streaming:
                continue
            for claims in ({"cv": 0}, {"dev": 9}):
                token = signed(token_keys, claims_of(user, **claims))
                code, _ = await outcome(channel, RPCS[name], name, bearer(token))
                assert code is not grpc.StatusCode.OK, (name, claims)


HEALTH_PORTS = {name: free_port() for name in ("gateway", "message", "presence", "push", "media")}


@pytest.fixture(scope="module")
def whole() -> Iterator[Mesh]:
    """A mesh of all services, each with a listener for its health."""
    env_of = {
        f"{service}-1": {f"WHIMBREL_{service.upper()}_HEALTH_LISTEN": f"{LOOPBACK}:{port}"}
        for service, port in HEALTH_PORTS.items()
    }
    everything = dict.fromkeys(("gateways", "message", "shards", "presence", "push", "media"), 1)
    with lasting_mesh(**everything, env_of=env_of) as mesh:
        yield mesh


NAMES = ("gateway", "message", "presence", "push", "media", "operator", "billing")


async def test_at_an_internal_listener_only_those_whom_the_proto_names_get_in(whole: Mesh) -> None:
    """Every rpc, by every service and by a team; a device's token opens nothing."""
    keys = KeySet.load(whole.data / "keys" / "token.json")
    device = bearer(signed(keys, claims_of(ulid_text(new_ulid()))))
    for answering, address in whole.internal_addresses.items():
        for service in NAMES:
            async with calling_as(whole, service, answering, address=address) as channel:
                for name, access in ACCESSES.items():
                    if access.answered_by != answering:
                        continue
                    if not access.admits(service):
                        ended = await outcome(channel, RPCS[name], name, device)
                        assert ended[0] is grpc.StatusCode.PERMISSION_DENIED, (name, service)
                    elif Caller.DEVICE in access.callers:  # a gateway that names no device
                        code, reason = await outcome(channel, RPCS[name], name, ())
                        assert code is not grpc.StatusCode.PERMISSION_DENIED, name
                        assert reason == "TOKEN_MISSING" or answering != "message", name


async def test_an_internal_listener_hears_nobody_without_a_certificate_of_the_mesh(
    whole: Mesh, tmp_path: Path
) -> None:
    """Each service, by plaintext, without a certificate, with one of another authority, and by who
    takes it for another service."""
    ca = (whole.data / "tls" / "ca.pem").read_bytes()
    stranger = identity(tmp_path, "gateway")
    own = whole.data / "tls"
    key, chain = ((own / f"gateway{end}").read_bytes() for end in ("-key.pem", ".pem"))
    foreign = [(tmp_path / f"gateway{end}").read_bytes() for end in ("-key.pem", ".pem")]
    assert len(whole.internal_addresses) == 4
    for answering, address in whole.internal_addresses.items():
        named = [("grpc.ssl_target_name_override", f"{answering}.whimbrel")]
        wrong = {
            "plaintext": grpc.aio.insecure_channel(address),
            "no certificate": _secure(address, named, ca),
            "a certificate of another authority": _secure(address, named, ca, *foreign),
            "who trusts another authority": stranger.channel(address, answering),
            "who looks for another service": _secure(
                address, [("grpc.ssl_target_name_override", "gateway.whimbrel")], ca, key, chain
            ),
            "who looks for an address": _secure(address, [], ca, key, chain),
        }
        for kind, channel in wrong.items():
            async with channel:
                for name, access in ACCESSES.items():
                    if access.answered_by == answering:
                        code, _ = await outcome(channel, RPCS[name], name, ())
                        assert code is grpc.StatusCode.UNAVAILABLE, (kind, name)
        async with _secure(address, named, ca, key, chain) as channel:
            assert await check(channel)


async def told(channel: grpc.aio.Channel, method: str, **asked: Any) -> Any:
    """What reflection answers."""
    stream: Any = channel.stream_stream(
        method, response_deserializer=reflection_pb2.ServerReflectionResponse.FromString
    )
    request = reflection_pb2.ServerReflectionRequest(**asked).SerializeToString()
    return await stream(iter([request]), timeout=5).read()


async def files_told(channel: grpc.aio.Channel, symbol: str) -> dict[str, FileDescriptorProto]:
    answer = await told(channel, REFLECTION[1], file_containing_symbol=symbol)
    encoded = answer.file_descriptor_response.file_descriptor_proto
    return {file.name: file for file in map(FileDescriptorProto.FromString, encoded)}


@pytest.mark.parametrize("method", REFLECTION)
async def test_an_operator_is_told_what_each_instance_serves_and_nothing_else(
    whole: Mesh, method: str
) -> None:
    of_grpc = {"grpc.health.v1.Health", REFLECTION[1].split("/")[1]}
    for answering, address in whole.internal_addresses.items():
        served = {
            service.full_name
            for service in SERVICES
            if any(one.answered_by == answering for one in access_of(service).values())
        }
        async with calling_as(whole, "operator", answering, address=address) as channel:
            answer = await told(channel, method, list_services="")
            listed = {one.name for one in answer.list_services_response.service}
            described = {
                service: await files_told(channel, service.full_name) for service in SERVICES
            }

        assert listed == served | of_grpc, answering
        for service, files in described.items():
            if service.full_name in served:
                assert files[service.file.name].SerializeToString() == service.file.serialized_pb
                assert "whimbrel/access/v1/access.proto" in files  # whatever it imports
            else:  # though its proto may be loaded, as that of a service that is called
                assert files == {}, (answering, service.full_name)


@pytest.mark.parametrize("method", REFLECTION)
async def test_nobody_but_an_operator_is_told_what_an_instance_serves(
    whole: Mesh, method: str
) -> None:
    keys = KeySet.load(whole.data / "keys" / "token.json")
    device = bearer(signed(keys, claims_of(ulid_text(new_ulid()))))

    for answering, address in whole.internal_addresses.items():
        for service in NAMES:
            if service != "operator":
                async with calling_as(whole, service, answering, address=address) as channel:
                    stream: Any = channel.stream_stream(method)
                    call = stream(metadata=device, timeout=5)
                    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED, service
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.stream_stream(method)(timeout=5)
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
    async with grpc.aio.insecure_channel(whole.gateway_addresses[0]) as channel:
        assert await outcome_of_unary(channel, method, device) == "METHOD_UNKNOWN"


async def outcome_of_unary(channel: grpc.aio.Channel, method: str, metadata: Any) -> str:
    """The reason for which a gateway refuses a method that it does not offer."""
    unary: Any = channel.unary_unary(method)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await unary(b"", metadata=metadata, timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    return reason_of(refused.value)


async def test_a_listener_for_the_health_tells_the_health_and_nothing_else(whole: Mesh) -> None:
    for service, port in HEALTH_PORTS.items():
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
            assert await check(channel)
            for method in (*REFLECTION, *RPCS):
                call: Any = channel.stream_stream(method)(timeout=5)
                assert await call.code() is grpc.StatusCode.UNIMPLEMENTED, (service, method)


def test_the_page_for_operators_tells_how_to_ask(whole: Mesh) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()
    [block] = re.findall(r"^```sh\n(\S*buf curl .*?)^```$", page, re.MULTILINE | re.DOTALL)
    program, *arguments = shlex.split(block.replace("\\\n", ""))
    tls, address = str(whole.data / "tls"), whole.internal_addresses["message"]
    typed = [one.replace(".whimbrel/tls", tls).replace("HOST:PORT", address) for one in arguments]
    assert program == ".venv/bin/buf"

    ran = subprocess.run(
        [Path(sys.executable).parent / "buf", *typed],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert ran.returncode == 0, ran.stderr
    assert "whimbrel.message.v1.MessageService" in ran.stdout.splitlines()


def _secure(address: str, options: Any, ca: bytes, *pair: bytes) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(ca, *pair)
    return grpc.aio.secure_channel(address, credentials, options=options)


@pytest.mark.parametrize(
    ("callers", "service", "gets_in"),
    [
        ({Caller.DEVICE}, "gateway", True),
        ({Caller.ANYONE}, "gateway", True),
        ({Caller.DEVICE}, "billing", False),
        ({Caller.TEAM}, "billing", True),
        ({Caller.TEAM}, "gateway", False),
        ({Caller.TEAM}, "media", False),
        ({Caller.TEAM}, "clients", False),
        ({Caller.SERVICE}, "media", True),
        ({Caller.SERVICE}, "gateway", False),
        ({Caller.SERVICE, Caller.TEAM}, "billing", True),
        ({Caller.TEAM}, "operator", False),
        ({Caller.SERVICE}, "operator", False),
    ],
)
def test_who_is_admitted(callers: set[Caller], service: str, gets_in: bool) -> None:

    assert Access(frozenset(callers), frozenset({"media"}), "message").admits(service) is gets_in
