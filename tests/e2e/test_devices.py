"""Linked devices and their keys on the whole mesh: through a gateway, as a client calls."""

import asyncio
import contextlib
import hashlib
import secrets
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.ids import random_id, ulid_text
from tests.e2e.device import Device, reason_of
from tests.e2e.meshes import own_mesh
from tests.e2e.people import CALL_SECONDS, Account
from tests.tls import calling_as
from whimbrel.identity.v1 import (
    device_pb2,
    device_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
)
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client.crypto import curve, prekeys


@dataclass
class Caller:
    """A device that calls the mesh."""

    channel: grpc.aio.Channel
    identity: curve.KeyPair
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    account: Account | None = None

    def __post_init__(self) -> None:
        self._identities = identity_pb2_grpc.IdentityServiceStub(self.channel)
        self._devices = device_pb2_grpc.DeviceServiceStub(self.channel)
        self._keys = keys_pb2_grpc.KeyServiceStub(self.channel)
        self.signed = prekeys.signed_prekey(1, self.identity)
        self.last_resort = prekeys.kem_prekey(2, self.identity)

    @property
    def user_id(self) -> bytes:
        return self.account.user_id

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def device_keys(self) -> keys_pb2.DeviceKeys:
        return keys_pb2.DeviceKeys(
            identity_key=self.identity.public,
            registration_id=secrets.randbelow(16380) + 1,
            signed_prekey=_signed(keys_pb2.SignedEcPrekey, self.signed),
            last_resort_prekey=_signed(keys_pb2.KemPrekey, self.last_resort),
        )

    async def register(self) -> None:
        handle, at = f"p{secrets.token_hex(8)}", time.time_ns() // 1_000_000
        proof = (
            *(b"whimbrel register v2\0", handle.encode(), b"\0\0", self.identity.public),
            *(self.signed.pair.public, self.last_resort.pair.public, at.to_bytes(8, "big")),
        )
        made = await self._identities.Register(
            identity_pb2.RegisterRequest(
                handle=handle,
                device_public_key=self.public_key,
                signed_at=_moment(at),
                signature=self.key.sign(b"".join(proof)),
                keys=self.device_keys,
            ),
            timeout=CALL_SECONDS,
        )
        self.account = Account(handle, self.key, made.user_id, 1, made.access_token)

    async def link(self, user_id: bytes, token: bytes) -> None:
        at = time.time_ns() // 1_000_000
        hashed = hashlib.sha256(token).digest()
        proof = b"whimbrel link v1\0" + user_id + hashed + at.to_bytes(8, "big")
        linked = await self._devices.LinkDevice(
            device_pb2.LinkDeviceRequest(
                user_id=user_id,
                link_token=token,
                device_public_key=self.public_key,
                keys=self.device_keys,
                encrypted_name=b"tablet",
                signed_at=_moment(at),
                signature=self.key.sign(proof),
            ),
            timeout=CALL_SECONDS,
        )
        self.account = Account("", self.key, user_id, linked.device_id, linked.access_token)

    async def devices(self, method: str, **request: Any) -> Any:
        return await self._call(self._devices, device_pb2, method, request)

    async def keys(self, method: str, **request: Any) -> Any:
        return await self._call(self._keys, keys_pb2, method, request)

    async def _call(self, stub: Any, module: Any, method: str, request: dict[str, Any]) -> Any:
        metadata = self.account.metadata if self.account else ()
        message = getattr(module, f"{method}Request")(**request)
        return await getattr(stub, method)(message, metadata=metadata, timeout=CALL_SECONDS)


@contextlib.asynccontextmanager
async def callers(mesh: Mesh) -> AsyncIterator[Any]:
    """`ann = await new()`: a registered primary; `await new(ann)`: a linked device of hers."""
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:

        async def new(owner: Caller | None = None) -> Caller:
            if owner is None:
                caller = Caller(channel, curve.generate())
                await caller.register()
            else:
                caller = Caller(channel, owner.identity)
                token = (await owner.devices("CreateLinkToken")).link_token
                await caller.link(owner.user_id, token)
            return caller

        yield new


@pytest.fixture
async def new(mesh: Mesh) -> AsyncIterator[Any]:
    async with callers(mesh) as new:
        yield new


def _signed(kind: Any, key: Any) -> Any:
    return kind(key_id=key.id, public_key=key.pair.public, signature=key.signature)


def _numbered(key: Any) -> bytes:
    return key.id.to_bytes(8, "big") + key.pair.public


def _moment(milliseconds: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMilliseconds(milliseconds)
    return moment


def _pool(count: int) -> list[keys_pb2.EcPrekey]:
    made = [prekeys.one_time_prekey(number) for number in range(1, count + 1)]
    return [keys_pb2.EcPrekey(key_id=key.id, public_key=key.pair.public) for key in made]


async def _reason(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason_of(refused.value)


async def test_a_new_device_is_provisioned_linked_and_found(new, mesh: Mesh) -> None:
    ann, bob = await new(), await new()
    address = random_id()
    tablet = Caller(ann.channel, ann.identity)
    waiting = asyncio.create_task(tablet.devices("AwaitProvisioning", address=address))

    token = (await ann.devices("CreateLinkToken")).link_token
    await ann.devices("SendProvisioning", address=address, ciphertext=ann.user_id + token)
    told = (await waiting).ciphertext
    await tablet.link(told[:16], told[16:])

    fetched = await bob.keys("FetchKeys", user_id=ann.user_id)
    listed = (await ann.devices("ListDevices")).devices
    assert tablet.account.device_id == 2
    assert fetched.identity_key == ann.identity.public
    assert [bundle.device_id for bundle in fetched.bundles] == [1, 2]
    assert [device.encrypted_name for device in listed] == [b"", b"tablet"]
    async with Device(tablet.account, mesh.gateway_addresses[1]) as stream:
        await stream.hello()


async def test_nothing_left_at_an_address_is_told_in_time(new) -> None:
    ann = await new()
    before = time.monotonic()

    reason = await _reason(ann.devices("AwaitProvisioning", address=random_id()))

    assert reason == "PROVISIONING_EMPTY"
    assert time.monotonic() - before < 6


async def test_names_and_checks_go_through_the_gateway(new) -> None:
    ann, bob = await new(), await new()
    parts = (ann.identity.public, _numbered(ann.signed), _numbered(ann.last_resort))
    digest = hashlib.sha256(b"".join(parts)).digest()

    await ann.devices("RenameDevice", device_id=1, encrypted_name=b"phone")
    known = [keys_pb2.KnownIdentity(user_id=bob.user_id, fingerprint=b"none")]
    [changed] = (await ann.keys("CheckIdentities", known=known)).changed

    assert [d.encrypted_name for d in (await ann.devices("ListDevices")).devices] == [b"phone"]
    assert changed.identity_key == bob.identity.public
    assert (await ann.keys("CheckKeys", digest=digest)).equal
    assert not (await ann.keys("CheckKeys", digest=bytes(32))).equal


async def test_a_device_hears_that_its_keys_run_out(new, mesh: Mesh) -> None:
    ann, bob = await new(), await new()
    await ann.keys("UploadKeys", one_time_prekeys=_pool(3))
    async with Device(ann.account, mesh.gateway_addresses[1]) as stream:
        await stream.hello()

        [bundle] = (await bob.keys("FetchKeys", user_id=ann.user_id, device_id=1)).bundles
        await stream.until(lambda: bool(stream.all("low_prekeys")))

        assert bundle.one_time_prekey.key_id == 1
        assert bundle.kem_prekey.public_key == ann.last_resort.pair.public
        assert stream.all("low_prekeys")[0].one_time_prekeys == 2
    assert (await ann.keys("CountKeys")).one_time_prekeys == 2


async def test_a_revoked_device_is_out_within_two_seconds(new, mesh: Mesh) -> None:
    ann = await new()
    tablet = await new(ann)
    async with Device(tablet.account, mesh.gateway_addresses[1]) as stream:
        await stream.hello()

        await ann.devices("RevokeDevice", device_id=2)

        assert await stream.reason_of_end(within=2) == "DEVICE_REVOKED"
    async with Device(tablet.account, mesh.gateway_addresses[0]) as again:
        await again.hello_unanswered()
        assert await again.reason_of_end() == "DEVICE_REVOKED"
    for call in (
        tablet.keys("FetchKeys", user_id=ann.user_id),
        tablet.keys("UploadKeys", one_time_prekeys=_pool(1)),
        tablet.devices("ListDevices"),
    ):
        assert await _reason(call) == "DEVICE_REVOKED"


async def test_an_internal_team_cannot_speak_for_a_person(new, mesh: Mesh) -> None:
    ann = await new()
    claimed = (
        ("whimbrel-user-id", ulid_text(ann.user_id)),
        ("whimbrel-device-id", "1"),
        ("whimbrel-credential-version", "1"),
    )
    for service, reason in (("billing", "CALLER_NOT_ALLOWED"), ("gateway", "")):
        async with calling_as(mesh, service) as channel:
            list_devices = device_pb2_grpc.DeviceServiceStub(channel).ListDevices(
                device_pb2.ListDevicesRequest(),
                metadata=claimed,
                timeout=CALL_SECONDS,
            )

            if reason:
                assert await _reason(list_devices) == reason
            else:
                assert len((await list_devices).devices) == 1


async def test_a_device_is_revoked_within_two_seconds_without_redis() -> None:
    async with own_mesh() as mesh, callers(mesh) as new:
        ann = await new()
        tablet = await new(ann)
        async with Device(tablet.account, mesh.gateway_addresses[1]) as stream:
            await stream.hello()
            mesh.kill("valkey", signal.SIGSTOP)
            try:
                await ann.devices("RevokeDevice", device_id=2)

                assert await stream.reason_of_end(within=2) == "DEVICE_REVOKED"
                assert await _reason(ann.keys("FetchKeys", user_id=ann.user_id)) == "UNAVAILABLE"
            finally:
                mesh.kill("valkey", signal.SIGCONT)
