"""Every rpc of every proto, by every wrong caller: nobody gets in whom the proto does not name."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from mesh.access import Access, Caller, access_of
from mesh.ids import ulid_text
from mesh.keys import KeySet
from tests.e2e.device import reason_of
from tests.e2e.people import Account, register
from tests.e2e.test_listeners import service_metadata
from tests.e2e.test_tokens import FORGERIES, bearer, claims_of, signed, token_keys  # noqa: F401
from whimbrel.identity.v1 import identity_pb2
from whimbrel_cli.stack.mesh import Mesh

Pair = tuple[Account, Account]
_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def services() -> Iterator[ServiceDescriptor]:
    """All services of all protos."""
    root = Path(identity_pb2.__file__).parents[2]
    for path in sorted(root.rglob("*_pb2.py")):
        name = ".".join(("whimbrel", *path.relative_to(root).with_suffix("").parts))
        file: Any = importlib.import_module(name)
        yield from file.DESCRIPTOR.services_by_name.values()


SERVICES = list(services())
ACCESSES = {name: access for service in SERVICES for name, access in access_of(service).items()}
RPCS = {
    f"/{service.full_name}/{method.name}": method
    for service in SERVICES
    for method in service.methods
}


async def outcome(
    channel: grpc.aio.Channel, method: MethodDescriptor, name: str, metadata: Any
) -> tuple[Any, str]:
    """The status and the reason that a call ends with; its request is empty."""
    try:
        if method.client_streaming:
            stream: Any = channel.stream_stream(name)(metadata=metadata, timeout=5)
            await stream.read()
            return await stream.code(), ""
        unary: Any = channel.unary_unary(name)
        await unary(b"", metadata=metadata, timeout=5)
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
    bad = {"none": (), "a team's": service_metadata(mesh, "billing"), **forged}

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


async def test_at_an_internal_listener_only_those_whom_the_proto_names_get_in(
    mesh: Mesh,
    pair: Pair,
    token_keys: KeySet,  # noqa: F811
) -> None:
    user = ulid_text(pair[0].user_id)
    strangers = {
        "none": (),
        "a device": pair[0].metadata,
        "for another callee": service_metadata(mesh, "gateway", audience="nobody"),
        **{kind: bearer(forge(token_keys, user)) for kind, (forge, _) in FORGERIES.items()},
    }
    known = {
        name: service_metadata(mesh, name)
        for name in ("gateway", "message", "presence", "push", "media", "billing")
    }

    async with grpc.aio.insecure_channel(mesh.message_addresses[0]) as channel:
        for name, access in ACCESSES.items():
            if access.answered_by != "message":
                continue
            for kind, metadata in strangers.items():
                code, _ = await outcome(channel, RPCS[name], name, metadata)
                assert code is _UNAUTHENTICATED, (name, kind)
            for service, metadata in known.items():
                if not access.admits(service):
                    code, _ = await outcome(channel, RPCS[name], name, metadata)
                    assert code is grpc.StatusCode.PERMISSION_DENIED, (name, service)
                elif Caller.DEVICE in access.callers:  # a gateway that names no device
                    _, reason = await outcome(channel, RPCS[name], name, metadata)
                    assert reason == "TOKEN_MISSING", name


@pytest.mark.parametrize(
    ("callers", "service", "gets_in"),
    [
        ({Caller.DEVICE}, "gateway", True),
        ({Caller.ANYONE}, "gateway", True),
        ({Caller.DEVICE}, "billing", False),
        ({Caller.TEAM}, "billing", True),
        ({Caller.TEAM}, "gateway", False),
        ({Caller.TEAM}, "media", False),
        ({Caller.SERVICE}, "media", True),
        ({Caller.SERVICE}, "gateway", False),
        ({Caller.SERVICE, Caller.TEAM}, "billing", True),
    ],
)
def test_who_is_admitted(callers: set[Caller], service: str, gets_in: bool) -> None:

    assert Access(frozenset(callers), frozenset({"media"}), "message").admits(service) is gets_in
