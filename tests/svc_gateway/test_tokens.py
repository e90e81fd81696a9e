"""Who gets in: only a device with a good token, and nobody's word about who somebody is."""

import base64
import json
from datetime import UTC, datetime, timedelta

import grpc
import jwt
import pytest

from mesh.auth import TokenSigner
from mesh.errors import failure_of
from mesh.ids import new_ulid, ulid_text
from mesh.keys import KeySet
from mesh.testing import ManualClock
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.device import TestDevice
from tests.svc_gateway.fake_message import until
from whimbrel.gateway.v1 import gateway_pb2


async def refusal(edge: Edge, token: str) -> tuple[grpc.StatusCode, str]:
    device = edge.device(token=token)
    device.listen()
    failure = await device.ended()
    assert failure is not None
    assert device.heard == []
    assert edge.message.service.requests == []
    return failure.code(), failure_of(failure).reason


def a_token(keys: KeySet, *, key_id: str | None = None, clock: ManualClock | None = None) -> str:
    assert keys.private_key is not None
    signer = TokenSigner(keys.private_key, key_id or keys.key_id, clock=clock)
    user, lifetime = ulid_text(new_ulid()), timedelta(minutes=10)
    return signer.device_token(user=user, device_id=1, credential_version=1, lifetime=lifetime)[0]


def unsigned(token: str) -> str:
    header = {"alg": "none", "typ": jwt.get_unverified_header(token)["typ"]}
    encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{encoded}.{token.split('.')[1]}."


UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def test_without_a_token_there_is_no_stream(edge: Edge) -> None:
    await edge.start()

    assert await refusal(edge, "") == (UNAUTHENTICATED, "TOKEN_MISSING")


async def test_an_expired_token_is_refused(edge: Edge) -> None:
    await edge.start()
    long_ago = ManualClock(datetime.now(UTC) - timedelta(hours=1))

    token = a_token(edge.keys, clock=long_ago)

    assert await refusal(edge, token) == (UNAUTHENTICATED, "TOKEN_EXPIRED")


@pytest.mark.parametrize("kind", ["garbage", "forged", "none", "other key", "own id"])
async def test_a_token_that_is_not_ours_is_refused(edge: Edge, kind: str) -> None:
    await edge.start()
    good, stranger = a_token(edge.keys), KeySet.generate()
    body = good.split(".")[1]
    tokens = {
        "garbage": "x.y.z",
        "forged": good.replace(body, body[:-2] + ("AA" if body[-2:] != "AA" else "BB")),
        "none": unsigned(good),
        "other key": a_token(stranger),
        "own id": a_token(stranger, key_id=edge.keys.key_id),
    }

    assert await refusal(edge, tokens[kind]) == (UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_token_for_another_audience_is_refused(edge: Edge) -> None:
    await edge.start()
    good = a_token(edge.keys)
    claims = jwt.decode(good, options={"verify_signature": False})
    header = jwt.get_unverified_header(good)
    assert edge.keys.private_key is not None

    other = jwt.encode(
        {**claims, "aud": "message"}, edge.keys.private_key, algorithm="EdDSA", headers=header
    )

    assert await refusal(edge, other) == (UNAUTHENTICATED, "TOKEN_INVALID")


async def test_the_session_is_the_tokens_devices_whatever_the_metadata_say(edge: Edge) -> None:
    await edge.start()
    mine, others = new_ulid(), new_ulid()
    device = edge.device(mine, metadata=[("whimbrel-user-id", ulid_text(others))])

    await device.hello()

    assert edge.message.service.asked("open")[0].open.device.user_id == mine


async def test_a_stream_ends_when_its_token_and_the_grace_are_over(edge: Edge) -> None:
    await edge.start()
    user_id = new_ulid()
    device = edge.device(user_id, token=edge.token(user_id, lifetime=300))
    await device.hello()
    now = datetime.now(UTC)

    edge.gateway.sessions.end_expired(now + timedelta(seconds=355))
    assert len(edge.gateway.sessions) == 1
    edge.gateway.sessions.end_expired(now + timedelta(seconds=365))

    failure = await device.ended()
    assert failure is not None
    assert (failure.code(), failure_of(failure).reason) == (UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert not device.all("go_away")[0].HasField("reconnect_after")
    await until(lambda: not edge.gateway.sessions)


async def _show(device: TestDevice, token: str) -> None:
    next_token = gateway_pb2.Reauthenticate(token=token)
    await device.say(gateway_pb2.DeviceEvent(reauthenticate=next_token))


async def test_a_stream_goes_on_under_its_next_token(edge: Edge) -> None:
    await edge.start()
    user_id = new_ulid()
    device = edge.device(user_id, token=edge.token(user_id, lifetime=300))
    await device.hello()

    await _show(device, edge.token(user_id, lifetime=900))
    await device.send(new_ulid())
    await device.until(lambda: bool(device.all("accepted")))
    now = datetime.now(UTC)
    edge.gateway.sessions.end_expired(now + timedelta(seconds=950))
    assert len(edge.gateway.sessions) == 1
    edge.gateway.sessions.end_expired(now + timedelta(seconds=965))

    failure = await device.ended()
    assert failure is not None
    assert failure_of(failure).reason == "TOKEN_EXPIRED"


@pytest.mark.parametrize("kind", ["garbage", "empty", "expired", "another's", "other device's"])
async def test_a_next_token_that_is_not_good_ends_the_stream(edge: Edge, kind: str) -> None:
    await edge.start()
    device = await edge.connect()
    assert edge.keys.private_key is not None
    long_ago = ManualClock(datetime.now(UTC) - timedelta(hours=1))
    past = TokenSigner(edge.keys.private_key, edge.keys.key_id, clock=long_ago)
    user, lifetime = ulid_text(device.user_id), timedelta(minutes=10)
    tokens = {
        "garbage": "x.y.z",
        "empty": "",
        "expired": past.device_token(
            user=user, device_id=1, credential_version=1, lifetime=lifetime
        )[0],
        "another's": edge.token(new_ulid()),
        "other device's": TokenSigner(edge.keys.private_key, edge.keys.key_id).device_token(
            user=user, device_id=1, credential_version=2, lifetime=lifetime
        )[0],
    }

    await _show(device, tokens[kind])

    failure = await device.ended()
    assert failure is not None
    assert (failure.code(), failure_of(failure).reason) == (UNAUTHENTICATED, "TOKEN_INVALID")
    assert not device.all("go_away")[0].HasField("reconnect_after")


async def test_a_next_token_before_hello_breaks_the_protocol(edge: Edge) -> None:
    await edge.start()
    user_id = new_ulid()
    device = edge.device(user_id)
    device.listen()

    await _show(device, edge.token(user_id))

    failure = await device.ended()
    assert failure is not None
    assert failure_of(failure).reason == "PROTOCOL_VIOLATION"
