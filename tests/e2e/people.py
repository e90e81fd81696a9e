"""People with an account on a mesh, made the way a client makes them."""

import secrets
import time
from dataclasses import dataclass, field

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp

from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc

CALL_SECONDS = 10.0


@dataclass(slots=True)
class Account:
    """One person's account with its primary device."""

    handle: str
    key: Ed25519PrivateKey = field(repr=False)
    user_id: bytes
    device_id: int
    token: str = field(repr=False)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)


async def register(gateway: str, handle: str | None = None) -> Account:
    """Make an account through the gateway."""
    handle = handle or f"p{secrets.token_hex(8)}"
    key = Ed25519PrivateKey.generate()
    async with grpc.aio.insecure_channel(gateway) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        answer = await stub.Register(register_request(handle, key), timeout=CALL_SECONDS)
    return Account(handle, key, answer.user_id, answer.device_id, answer.access_token)


async def register_all(gateway: str, count: int) -> list[Account]:
    """Make several accounts."""
    return [await register(gateway) for _ in range(count)]


def register_request(handle: str, key: Ed25519PrivateKey) -> identity_pb2.RegisterRequest:
    signed_at = time.time_ns() // 1_000_000
    proof = b"whimbrel register v1\0" + handle.encode() + b"\0" + signed_at.to_bytes(8, "big")
    return identity_pb2.RegisterRequest(
        handle=handle,
        device_public_key=key.public_key().public_bytes_raw(),
        signed_at=_timestamp(signed_at),
        signature=key.sign(proof),
    )


def _timestamp(milliseconds: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMilliseconds(milliseconds)
    return moment
