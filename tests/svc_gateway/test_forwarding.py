"""Unary calls of clients: a closed list, passed on as bytes with the caller's proven identity."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from mesh.access import REFLECTION, Caller
from mesh.errors import Unavailable, failure_of
from mesh.ids import new_ulid, ulid_text
from svc_gateway.forward import METHODS
from tests.svc_gateway.conftest import Edge
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc

LOOK_UP = "/whimbrel.identity.v1.IdentityService/LookUp"
REGISTER = "/whimbrel.identity.v1.IdentityService/Register"


@pytest.fixture
async def channel(edge: Edge) -> AsyncIterator[grpc.aio.Channel]:
    await edge.start(messages=2)
    async with grpc.aio.insecure_channel(edge.address) as channel:
        yield channel


def bearer(edge: Edge, user_id: bytes) -> tuple[str, str]:
    return "authorization", f"Bearer {edge.token(user_id)}"


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), failure_of(caught.value).reason


async def test_a_call_is_passed_on_and_answered(edge: Edge, channel: grpc.aio.Channel) -> None:
    stub = identity_pb2_grpc.IdentityServiceStub(channel)

    answer = await stub.Register(identity_pb2.RegisterRequest(handle="ann"))

    assert answer.access_token == "token of ann"


async def test_the_service_learns_who_calls_and_only_that(
    edge: Edge, channel: grpc.aio.Channel
) -> None:
    stub, ann = identity_pb2_grpc.IdentityServiceStub(channel), new_ulid()
    lies = [("whimbrel-user-id", ulid_text(new_ulid())), ("whimbrel-admin", "1"), ("x", "y")]
    lies.append(("traceparent", f"00-{'1' * 32}-{'2' * 16}-01"))

    await stub.LookUp(identity_pb2.LookUpRequest(handle="bob"), metadata=[bearer(edge, ann), *lies])

    (_, metadata) = edge.identity_calls[-1]
    assert metadata["whimbrel-user-id"] == ulid_text(ann)
    assert metadata["whimbrel-device-id"] == "1"
    assert metadata["whimbrel-credential-version"] == "1"
    assert "whimbrel-admin" not in metadata
    assert "x" not in metadata
    assert "traceparent" not in metadata
    assert "authorization" not in metadata


async def test_a_call_without_a_token_carries_no_identity(
    edge: Edge, channel: grpc.aio.Channel
) -> None:
    stub = identity_pb2_grpc.IdentityServiceStub(channel)
    lies = [("whimbrel-user-id", ulid_text(new_ulid())), bearer(edge, new_ulid())]

    await stub.Register(identity_pb2.RegisterRequest(handle="ann"), metadata=lies)

    (_, metadata) = edge.identity_calls[-1]
    assert not [key for key in metadata if key.startswith("whimbrel-")]


async def test_a_method_that_needs_a_token_is_refused_without(
    edge: Edge, channel: grpc.aio.Channel
) -> None:
    got = await failure(channel.unary_unary(LOOK_UP)(b""))

    assert got == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert edge.identity_calls == []


@pytest.mark.parametrize(
    "method",
    [
        "/whimbrel.message.v1.MessageService/Send",
        "/whimbrel.message.v1.MessageService/Attach",
        "/whimbrel.identity.v1.IdentityService/Delete",
        *REFLECTION,
        "/x/y",
    ],
)
async def test_a_method_outside_the_closed_list_is_unknown(
    edge: Edge, channel: grpc.aio.Channel, method: str
) -> None:
    call = channel.unary_unary(method)(b"", metadata=[bearer(edge, new_ulid())])

    assert await failure(call) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")


def test_only_what_makes_a_caller_known_is_called_without_a_token() -> None:
    assert {
        name.rpartition("/")[2] for name, a in METHODS.items() if Caller.ANYONE in a.callers
    } == {
        *("Register", "Refresh", "RequestCode", "AwaitProvisioning", "LinkDevice"),
    }


async def test_a_failure_comes_back_with_its_details(edge: Edge, channel: grpc.aio.Channel) -> None:
    edge.identity_failure = Unavailable(
        "the shard is away", metadata={"shard": "a"}, retry_after=timedelta(seconds=7)
    )

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(REGISTER)(b"")

    got = failure_of(caught.value)
    assert (got.code, got.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert got.metadata == {"shard": "a"}
    assert got.retry_after == timedelta(seconds=7)


async def test_an_unavailable_instance_is_followed_by_one_other(
    edge: Edge, channel: grpc.aio.Channel
) -> None:
    edge.identity_failure = Unavailable("going down")
    edge.identity_failures_left = 1

    await channel.unary_unary(REGISTER)(b"")

    assert len({instance for instance, _ in edge.identity_calls}) == 2


async def test_without_any_instance_the_call_is_refused_for_now(
    edge: Edge, channel: grpc.aio.Channel
) -> None:
    for message in edge.messages.values():
        await message.stop()
    await edge.until_attached(0)

    got = await failure(channel.unary_unary(REGISTER)(b""))

    assert got == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


async def test_the_callers_deadline_goes_with_the_call(
    edge: Edge, channel: grpc.aio.Channel
) -> None:
    edge.identity_hangs = asyncio.Event()

    got = await failure(channel.unary_unary(REGISTER)(b"", timeout=0.3))

    assert got[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    edge.identity_hangs.set()
