"""Requests out of bounds, at a gateway of a whole mesh: whoever answers the rpc refuses them."""

from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from mesh.access import Caller
from mesh.errors import failure_of
from tests.e2e.people import CALL_SECONDS, Account
from tests.e2e.test_access import ACCESSES, RPCS
from tests.requests import beyond, filled, put
from whimbrel.identity.v1 import identity_pb2
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
