"""What is out of bounds, in a whole mesh: calls of devices, and what a gateway says to others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from mesh.access import Caller
from mesh.errors import failure_of
from tests.e2e.people import CALL_SECONDS, Account
from tests.e2e.test_access import ACCESSES, RPCS
from tests.requests import beyond, filled, put
from tests.tls import calling_as
from whimbrel.error.v1 import reason_pb2
from whimbrel.identity.v1 import identity_pb2
from whimbrel.message.v1 import attach_pb2, message_pb2_grpc
from whimbrel_cli.stack.mesh import Mesh

Pair = tuple[Account, Account]


async def refused(gateway: str, account: Account, method: str, request: Any) -> Any:
    """The failed call."""
    async with grpc.aio.insecure_channel(gateway) as channel:
        call: Any = channel.unary_unary(method)
        try:
            await call(request.SerializeToString(), metadata=account.metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as failure:
            return failure
    return None


def broken(descriptor: Descriptor) -> tuple[str, Any] | None:
    """A request with one field out of bounds, and the field; None if it has no bounds."""
    for field in descriptor.fields:
        for values in beyond(field):
            message = filled(descriptor, choose=field)
            put(message, field, values)
            return field.name, message
    return None


async def test_every_rpc_that_devices_call_is_held_to_its_bounds(mesh: Mesh, pair: Pair) -> None:
    gateway, tried = mesh.gateway_addresses[0], 0

    for name, method in RPCS.items():
        access, wrong = ACCESSES[name], broken(method.input_type)
        is_theirs = not access.callers.isdisjoint((Caller.DEVICE, Caller.ANYONE))
        # This mesh runs no media and no push; they make their servers by the same call.
        if not is_theirs or access.answered_by != "message" or wrong is None:
            continue
        failure = await refused(gateway, pair[0], name, wrong[1])
        assert failure is not None, name
        assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT, name
        assert failure_of(failure).metadata["field"] == wrong[0], name
        tried += 1
    assert tried > 30


async def test_the_refusal_names_the_field_and_the_bound_and_not_what_was_sent(
    mesh: Mesh, pair: Pair
) -> None:
    request = identity_pb2.RequestCodeRequest(phone_number="+49-151-SECRET")

    failure = await refused(
        mesh.gateway_addresses[0],
        pair[0],
        "/whimbrel.identity.v1.IdentityService/RequestCode",
        request,
    )

    status = rpc_status.from_call(failure)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.metadata["field"]) == ("FIELD_INVALID", "phone_number")
    [violation] = bad.field_violations
    assert violation.field == "phone_number"
    assert violation.description == info.metadata["allowed"] == r"\+[1-9][0-9]{7,14}"
    assert b"SECRET" not in status.SerializeToString()


_EVENTS = attach_pb2.GatewayEvent.DESCRIPTOR.oneofs_by_name["event"].fields
_FIELD_INVALID = reason_pb2.ERROR_REASON_FIELD_INVALID


def wrong_events() -> dict[str, tuple[str, attach_pb2.GatewayEvent]]:
    """An event of each kind with one field out of bounds, and the field."""
    wrong = {}
    for field in _EVENTS:
        found = broken(field.message_type)
        if found is None:  # no bound of its own, but a device that it needs
            found = "device", filled(field.message_type)
            found[1].ClearField("device")
        event = attach_pb2.GatewayEvent()
        put(event, field, [found[1]])
        wrong[field.name] = (f"{field.name}.{found[0]}", event)
    return wrong


WRONG = wrong_events()


class Attached:
    """A gateway's stream to the first message instance."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def say(self, *events: attach_pb2.GatewayEvent) -> None:
        await self.call.write(attach_pb2.AttachRequest(events=events))

    async def answers(self, *ids: int) -> list[attach_pb2.MessageEvent]:
        """The answers to these requests, in their order, whatever is pushed meanwhile."""
        found: dict[int, attach_pb2.MessageEvent] = {}
        async with asyncio.timeout(CALL_SECONDS):
            while not found.keys() >= set(ids):
                found |= {event.id: event for event in (await self.call.read()).events}
        return [found[one] for one in ids]

    async def is_served(self, account: Account) -> bool:
        devices = [attach_pb2.DeviceAddress(user_id=account.user_id, device_id=1)]
        await self.say(
            attach_pb2.GatewayEvent(id=999, fetch_heads=attach_pb2.FetchHeads(devices=devices))
        )
        [answer] = await self.answers(999)
        return [head.linked for head in answer.heads.heads] == [True]


@contextlib.asynccontextmanager
async def attached(mesh: Mesh, name: str) -> AsyncIterator[Attached]:
    async with calling_as(mesh, "gateway") as channel:
        gateway = Attached(message_pb2_grpc.MessageServiceStub(channel).Attach())
        await gateway.say(attach_pb2.GatewayEvent(hello={"instance_id": name}))
        yield gateway
        gateway.call.cancel()


async def test_a_request_out_of_bounds_is_refused_in_its_answer_and_the_stream_goes_on(
    mesh: Mesh, pair: Pair
) -> None:
    asked = {kind: wrong for kind, wrong in WRONG.items() if kind not in {"hello", "not_here"}}
    assert len(asked) == 9

    async with attached(mesh, "clumsy") as gateway:
        for id_, (_, event) in enumerate(asked.values(), start=1):
            event.id = id_
        await gateway.say(*(event for _, event in asked.values()))
        answers = await gateway.answers(*range(1, 10))
        assert await gateway.is_served(pair[0])

    for answer, (kind, (field, _)) in zip(answers, asked.items(), strict=True):
        refused = answer.rejected if kind == "send" else answer.refused
        assert refused.reason == _FIELD_INVALID, kind
        assert refused.metadata["field"] == field
        assert refused.metadata["allowed"], kind
        assert not refused.HasField("retry_after"), kind


@pytest.mark.parametrize("kind", ["hello", "not_here", "ack"])
async def test_what_has_no_answer_ends_its_stream_and_no_other(
    mesh: Mesh, pair: Pair, kind: str
) -> None:
    """An acknowledgement, too, without the id under which it could be answered."""
    field, event = WRONG[kind]
    wrong = attach_pb2.GatewayEvent()
    wrong.CopyFrom(event)
    wrong.id = 0

    async with attached(mesh, "honest") as honest:
        assert await honest.is_served(pair[0])
        async with calling_as(mesh, "gateway") as channel:
            clumsy = Attached(message_pb2_grpc.MessageServiceStub(channel).Attach())
            if kind != "hello":
                await clumsy.say(attach_pb2.GatewayEvent(hello={"instance_id": "clumsy"}))
            await clumsy.say(wrong)
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await clumsy.answers(1)
        assert await honest.is_served(pair[0])

    failure = failure_of(ended.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert failure.metadata["field"] == f"events[0].{field}"
    assert failure.metadata["allowed"]
