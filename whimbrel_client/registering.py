"""Registering an account, and the one-time code that shows a phone number to be one's own."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc, keys_pb2
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, timestamp
from whimbrel_client.profile import Account

Stub = identity_pb2_grpc.IdentityServiceStub


@dataclass(frozen=True, slots=True)
class Applicant:
    """What somebody registers with."""

    handle: str
    # In the form +<country><number>; empty: none is given.
    number: str = field(default="", repr=False)
    code: str = field(default="", repr=False)
    # Of the registration lock.
    pin: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class CodeSent:
    """A code is on its way to a number."""

    expires_at: datetime
    # When the next may be asked for.
    next_at: datetime


async def request_code(calls: IdentityCalls, number: str) -> CodeSent:
    """Have a code sent to the number. Raises RateLimited, CallFailed and Unreachable."""
    request = identity_pb2.RequestCodeRequest(phone_number=number)

    async def call(channel: grpc.aio.Channel) -> identity_pb2.RequestCodeResponse:
        return await Stub(channel).RequestCode(request, timeout=CALL_SECONDS)

    sent = await calls.anywhere(call)
    return CodeSent(sent.expires_at.ToDatetime(UTC), sent.next_at.ToDatetime(UTC))


async def register(
    calls: IdentityCalls,
    applicant: Applicant,
    key: Ed25519PrivateKey,
    keys: keys_pb2.DeviceKeys,
) -> tuple[Account, str]:
    """Make the account, or find it again; also returns a first token.

    Raises HandleTaken, CodeInvalid, NumberTaken, RegistrationLocked, RateLimited, CallFailed and
    Unreachable.
    """
    names = applicant.handle.encode() + b"\0" + applicant.number.encode() + b"\0"
    public = keys.identity_key + keys.signed_prekey.public_key + keys.last_resort_prekey.public_key

    async def call(channel: grpc.aio.Channel) -> identity_pb2.RegisterResponse:
        at_ms = calls.now_ms()
        signed = b"whimbrel register v2\0" + names + public + at_ms.to_bytes(8, "big")
        request = identity_pb2.RegisterRequest(
            handle=applicant.handle,
            device_public_key=key.public_key().public_bytes_raw(),
            signed_at=timestamp(at_ms),
            signature=key.sign(signed),
            phone_number=applicant.number,
            code=applicant.code,
            registration_lock=lock_of(applicant.pin),
            keys=keys,
        )
        return await Stub(channel).Register(request, timeout=CALL_SECONDS)

    response = await calls.anywhere(call)
    account = Account(
        applicant.handle, response.user_id, response.device_id, calls.gateways, calls.ca
    )
    return account, response.access_token


def lock_of(pin: str) -> bytes:
    """What the mesh gets to see of a PIN; empty for none."""
    return hashlib.sha256(pin.encode()).digest() if pin else b""
