"""Nobody gets in with a token that is not theirs, at any listener."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import jwt
import pytest

from mesh.auth import TokenSigner
from mesh.ids import new_ulid, ulid_text
from mesh.keys import KeySet
from mesh.testing import ManualClock
from tests.e2e.conftest import Devices
from tests.e2e.device import Device, a_send, reason_of
from tests.e2e.people import Account, register_request
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel_cli.stack.mesh import Mesh

Pair = tuple[Account, Account]
Forge = Callable[[KeySet, str], str]

LIFETIME = timedelta(minutes=10)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def claims_of(user: str, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {"aud": "whimbrel", "sub": user, "dev": 1, "cv": 1, "iat": now, "exp": now + 600}
    return claims | changes


def signed(keys: KeySet, claims: dict[str, Any], **headers: str) -> str:
    header = {"kid": keys.key_id, "typ": "whimbrel-device+jwt", **headers}
    return jwt.encode(claims, keys.private_key, algorithm="EdDSA", headers=header)


def expired(keys: KeySet, user: str) -> str:
    signer = TokenSigner(keys.private_key, keys.key_id, clock=ManualClock(LONG_AGO))
    return signer.device_token(user=user, device_id=1, credential_version=1, lifetime=LIFETIME)[0]


def unsigned(keys: KeySet, user: str) -> str:
    header = {"kid": keys.key_id, "typ": "whimbrel-device+jwt"}
    return jwt.encode(claims_of(user), None, algorithm="none", headers=header)


def by_public_key(keys: KeySet, user: str) -> str:
    """HS256 under the bytes of the public key: what a verifier that trusts `alg` would take."""
    header = {"alg": "HS256", "kid": keys.key_id, "typ": "whimbrel-device+jwt"}
    parts = [_based(json.dumps(part).encode()) for part in (header, claims_of(user))]
    secret = keys.public_keys[keys.key_id].public_bytes_raw()
    mac = hmac.digest(secret, ".".join(parts).encode(), hashlib.sha256)
    return ".".join([*parts, _based(mac)])


def by_another_key(keys: KeySet, user: str) -> str:
    other = KeySet.generate()
    return signed(other, claims_of(user), kid=keys.key_id)


def by_an_unknown_key(keys: KeySet, user: str) -> str:
    return signed(KeySet.generate(), claims_of(user))


def for_another_audience(keys: KeySet, user: str) -> str:
    return signed(keys, claims_of(user, aud="message"))


def with_another_subject(keys: KeySet, user: str) -> str:
    """A good token of somebody else, its claims exchanged for these."""
    header, _, signature = signed(keys, claims_of(ulid_text(new_ulid()))).split(".")
    return ".".join([header, _based(json.dumps(claims_of(user)).encode()), signature])


def of_another_kind(keys: KeySet, user: str) -> str:
    return signed(keys, claims_of(user), typ="whimbrel-service+jwt")


def garbage(keys: KeySet, user: str) -> str:
    return "no.token.this"


FORGERIES: dict[str, tuple[Forge, str]] = {
    "expired": (expired, "TOKEN_EXPIRED"),
    "alg none": (unsigned, "TOKEN_INVALID"),
    "HS256 by the public key": (by_public_key, "TOKEN_INVALID"),
    "another key under this id": (by_another_key, "TOKEN_INVALID"),
    "an unknown key": (by_an_unknown_key, "TOKEN_INVALID"),
    "another audience": (for_another_audience, "TOKEN_INVALID"),
    "another subject": (with_another_subject, "TOKEN_INVALID"),
    "another kind": (of_another_kind, "TOKEN_INVALID"),
    "garbage": (garbage, "TOKEN_INVALID"),
}


@pytest.fixture
def token_keys(mesh: Mesh) -> KeySet:
    """The very keys that sign the mesh's tokens."""
    return KeySet.load(mesh.data / "keys" / "token.json")


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def assert_refused(device: Device, reason: str) -> None:
    assert await device.reason_of_end() == reason
    assert device.failure is not None
    assert device.failure.code() is grpc.StatusCode.UNAUTHENTICATED
    assert device.heard == []


async def test_a_token_made_with_the_right_key_is_let_in(
    devices: Devices, pair: Pair, token_keys: KeySet
) -> None:
    token = signed(token_keys, claims_of(ulid_text(pair[0].user_id)))

    device = await devices.stream(pair[0], metadata=bearer(token))

    assert (await device.hello()).epoch == 1


@pytest.mark.parametrize(("forge", "reason"), FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_bad_token_is_refused_before_the_stream(
    devices: Devices, pair: Pair, token_keys: KeySet, forge: Forge, reason: str
) -> None:
    token = forge(token_keys, ulid_text(pair[0].user_id))

    device = await devices.stream(pair[0], metadata=bearer(token))

    await assert_refused(device, reason)


async def test_no_token_is_refused(devices: Devices, pair: Pair) -> None:
    device = await devices.stream(pair[0], metadata=())

    await assert_refused(device, "TOKEN_MISSING")


@pytest.mark.parametrize("claims", [{"cv": 0}, {"dev": 2}], ids=["old credential", "no device"])
async def test_a_good_token_of_what_is_not_linked_opens_no_session(
    devices: Devices, pair: Pair, token_keys: KeySet, claims: dict[str, int]
) -> None:
    token = signed(token_keys, claims_of(ulid_text(pair[0].user_id), **claims))
    device = await devices.stream(pair[0], metadata=bearer(token))

    await device.hello_unanswered()

    assert await device.reason_of_end() == "DEVICE_REVOKED"
    assert device.all("welcome") == []


@pytest.mark.parametrize(("forge", "reason"), FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_bad_token_is_refused_by_calls_as_well(
    mesh: Mesh, pair: Pair, token_keys: KeySet, forge: Forge, reason: str
) -> None:
    token = forge(token_keys, ulid_text(pair[0].user_id))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await look_up(mesh, pair[1].handle, bearer(token))

    assert reason_of(refused.value) == reason


async def test_metadata_of_ours_from_a_client_means_nothing(
    devices: Devices, mesh: Mesh, pair: Pair
) -> None:
    one, other = pair
    third = await devices.person()
    claimed = (
        ("whimbrel-user-id", ulid_text(other.user_id)),
        ("whimbrel-device-id", "1"),
    )
    sender = await devices.stream(one, metadata=(*one.metadata, *claimed))
    receiver = await devices.online(third)

    await sender.hello()
    await sender.accepted(a_send(third.user_id))
    (envelope,) = await receiver.delivered(1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await look_up(mesh, other.handle, claimed)

    assert envelope.sender_user_id == one.user_id
    assert reason_of(refused.value) == "TOKEN_MISSING"


async def test_a_registration_signed_by_another_key_makes_no_account(mesh: Mesh) -> None:
    signer, claimant = KeySet.generate().private_key, KeySet.generate().private_key
    assert signer is not None
    assert claimant is not None
    request = register_request("impostor", signer)
    request.device_public_key = claimant.public_key().public_bytes_raw()

    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Register(request, timeout=5)

    assert reason_of(refused.value) == "SIGNATURE_INVALID"


async def look_up(
    mesh: Mesh, handle: str, metadata: tuple[tuple[str, str], ...]
) -> identity_pb2.LookUpResponse:
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        request = identity_pb2.LookUpRequest(handle=handle)
        return await stub.LookUp(request, metadata=metadata, timeout=5)


def _based(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
