from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import reason_of
from mesh.holding import BoundsInterceptor
from mesh.ids import ulid_text
from mesh.server import INTERNAL_LISTENER, bind, new_server, running
from svc_message.identity.servicer import IdentityServicer
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc

_CALLER = (
    ("whimbrel-user-id", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ("whimbrel-device-id", "1"),
    ("whimbrel-credential-version", "1"),
)


@pytest.fixture
async def stub(identity) -> AsyncIterator[identity_pb2_grpc.IdentityServiceStub]:
    server = new_server(INTERNAL_LISTENER, interceptors=[BoundsInterceptor()])
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(IdentityServicer(identity), server)
    address = bind(server, "127.0.0.1:0")
    async with running(server, timedelta()), grpc.aio.insecure_channel(address) as channel:
        yield identity_pb2_grpc.IdentityServiceStub(channel)


def _on_the_wire(proof) -> dict:
    signed_at = Timestamp()
    signed_at.FromMilliseconds(proof["signed_at"])
    return {"signed_at": signed_at, "signature": proof["signature"]}


def _registration(person, handle) -> identity_pb2.RegisterRequest:
    proof = _on_the_wire(person.proof_of_register(handle))
    return identity_pb2.RegisterRequest(handle=handle, device_public_key=person.public_key, **proof)


def _caller(user_id: bytes) -> tuple[tuple[str, str], ...]:
    return (("whimbrel-user-id", ulid_text(user_id)), *_CALLER[1:])


async def _reason(call) -> tuple:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    reason, metadata, _ = reason_of(failure.value)
    return failure.value.code(), reason, metadata


async def test_register_refresh_and_look_up_over_the_wire(stub, alice, verifier) -> None:
    made = await stub.Register(_registration(alice, "alice"))
    proof = _on_the_wire(alice.proof_of_refresh(made.user_id))
    refreshed = await stub.Refresh(
        identity_pb2.RefreshRequest(user_id=made.user_id, device_id=made.device_id, **proof)
    )
    wanted = identity_pb2.LookUpRequest(handle="alice")
    found = await stub.LookUp(wanted, metadata=_caller(made.user_id))

    assert found.user_id == made.user_id
    expiry = refreshed.expires_at.ToDatetime(tzinfo=alice.clock.now().tzinfo)
    assert verifier.verify(made.access_token) == verifier.verify(refreshed.access_token)
    assert verifier.verify(refreshed.access_token).expires_at == expiry


async def test_looking_up_without_a_token_is_refused(stub) -> None:
    nameless = (("whimbrel-user-id", ""), *_CALLER[1:])
    for metadata in ((), _CALLER[:1], _CALLER[:2], _CALLER[1:], nameless):
        call = stub.LookUp(identity_pb2.LookUpRequest(handle="alice"), metadata=metadata)
        assert await _reason(call) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", {})


async def test_each_refusal_has_its_reason(stub, alice, mallory) -> None:
    made = await stub.Register(_registration(alice, "alice"))
    unsigned = _registration(alice, "bob")
    unsigned.ClearField("signature")
    bad_time = _registration(alice, "bob")
    bad_time.signed_at.seconds, bad_time.signed_at.nanos = -(2**63), -(2**31)

    taken = await _reason(stub.Register(_registration(mallory, "alice")))
    invalid = await _reason(stub.Register(_registration(mallory, "Bob")))
    forged = await _reason(stub.Register(unsigned))
    stale = await _reason(stub.Register(bad_time))
    empty = await _reason(stub.Register(identity_pb2.RegisterRequest()))
    nobody = identity_pb2.LookUpRequest(handle="nobody")
    unknown = await _reason(stub.LookUp(nobody, metadata=_caller(made.user_id)))
    unlinked = await _reason(stub.LookUp(nobody, metadata=_CALLER))

    assert taken[1] == "HANDLE_TAKEN"
    assert invalid[1] == empty[1] == "HANDLE_INVALID"
    assert forged[1] == "SIGNATURE_INVALID"
    assert stale[1:] == ("SIGNATURE_STALE", {"server_time": "2026-01-01T00:00:00.000Z"})
    assert unknown[:2] == (grpc.StatusCode.NOT_FOUND, "HANDLE_UNKNOWN")
    assert unlinked[1] == "DEVICE_REVOKED"


async def test_an_answer_shows_no_token_when_it_is_logged(accounts, alice) -> None:
    access = await alice.register(accounts, "alice")

    assert access.token not in repr(access)
