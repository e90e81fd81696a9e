"""Accounts on the whole mesh: numbers and codes, blocks, and the end of an account."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.conftest import Devices
from tests.e2e.device import a_send, reason_of
from tests.e2e.people import CALL_SECONDS, Account, register_request
from tests.e2e.shards import on_each_shard
from tests.faults.town import eventually
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel_cli.codes import sent_codes
from whimbrel_cli.stack.mesh import Mesh

Pair = tuple[Account, Account]

_MOST_TO_END = 2.0


@pytest.fixture
async def identity(mesh: Mesh) -> AsyncIterator[identity_pb2_grpc.IdentityServiceStub]:
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[1]) as channel:
        yield identity_pb2_grpc.IdentityServiceStub(channel)


@pytest.fixture
def number() -> str:
    return f"+49151{secrets.randbelow(10**8):08}"


async def code_for(mesh: Mesh, identity: Any, number: str) -> str:
    """Ask for a code, and look at the phone."""
    request = identity_pb2.RequestCodeRequest(phone_number=number)
    await identity.RequestCode(request, timeout=CALL_SECONDS)
    [code] = [sent.code for sent in sent_codes(mesh.data) if sent.phone_number == number]
    return code


async def register(identity: Any, handle: str, **fields: str) -> Account:
    key = Ed25519PrivateKey.generate()
    request = register_request(handle, key)
    request.MergeFrom(identity_pb2.RegisterRequest(**fields))
    answer = await identity.Register(request, timeout=CALL_SECONDS)
    return Account(handle, key, answer.user_id, answer.device_id, answer.access_token)


async def test_a_number_leads_to_its_account_and_a_code_is_good_once(
    mesh: Mesh, identity: Any, devices: Devices, number: str
) -> None:
    handle = f"p{secrets.token_hex(8)}"
    code = await code_for(mesh, identity, number)
    alice = await register(identity, handle, phone_number=number, code=code)
    device = await devices.online(alice)
    wanted = identity_pb2.LookUpRequest(phone_number=number)
    found = await identity.LookUp(wanted, metadata=alice.metadata, timeout=CALL_SECONDS)

    with pytest.raises(grpc.aio.AioRpcError) as reused:
        await register(identity, handle, phone_number=number, code=code)
    with pytest.raises(grpc.aio.AioRpcError) as too_soon:
        await code_for(mesh, identity, number)

    assert found.user_id == alice.user_id
    assert reason_of(reused.value) == "CODE_INVALID"
    assert reason_of(too_soon.value) == "RATE_LIMITED"
    assert not device.failure


async def test_a_blocked_person_s_messages_are_accepted_and_not_delivered(
    mesh: Mesh, identity: Any, devices: Devices, pair: Pair
) -> None:
    alice, mallory = pair
    sender, receiver = await devices.online(mallory), await devices.online(alice, gateway=1)
    block = identity_pb2.BlockRequest(user_id=mallory.user_id)
    unblock = identity_pb2.UnblockRequest(user_id=mallory.user_id)

    await identity.Block(block, metadata=alice.metadata, timeout=CALL_SECONDS)
    await sender.accepted(a_send(alice.user_id, b"kept out"))
    # The block is looked at where the copy is written, which may be on another shard.
    await eventually(lambda: _nothing_is_on_its_way_to(mesh, alice))
    listed = await identity.ListBlocked(
        identity_pb2.ListBlockedRequest(), metadata=alice.metadata, timeout=CALL_SECONDS
    )
    await identity.Unblock(unblock, metadata=alice.metadata, timeout=CALL_SECONDS)
    await sender.accepted(a_send(alice.user_id, b"let in"))
    await receiver.delivered(1)

    assert list(listed.user_ids) == [mallory.user_id]
    assert receiver.bodies == [b"let in"]


async def _nothing_is_on_its_way_to(mesh: Mesh, account: Account) -> bool:
    query = "SELECT FROM copy_outbox WHERE user_id = $1"
    return not await on_each_shard(mesh, query, account.user_id)


async def test_a_deleted_account_is_gone_at_once(
    identity: Any, devices: Devices, pair: Pair
) -> None:
    alice, bob = pair
    device, sender = await devices.online(alice), await devices.online(bob)
    began = time.monotonic()

    await identity.DeleteAccount(
        identity_pb2.DeleteAccountRequest(), metadata=alice.metadata, timeout=CALL_SECONDS
    )
    async with asyncio.timeout(_MOST_TO_END):
        reason = await device.reason_of_end()

    assert reason == "DEVICE_REVOKED"
    assert time.monotonic() - began < _MOST_TO_END
    assert (await sender.rejected(a_send(alice.user_id))).reason
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await identity.LookUp(
            identity_pb2.LookUpRequest(handle=alice.handle),
            metadata=bob.metadata,
            timeout=CALL_SECONDS,
        )
    assert reason_of(unknown.value) == "HANDLE_UNKNOWN"
