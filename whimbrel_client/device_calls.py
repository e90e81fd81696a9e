"""Calls that link, list and revoke the devices of the own account."""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel.content.v1.link_pb2 import LinkSecret
from whimbrel.identity.v1 import device_pb2, device_pb2_grpc, keys_pb2
from whimbrel_client.crypto import KeyPair
from whimbrel_client.device_names import open_name, seal_name
from whimbrel_client.errors import CallFailed, DeviceUnknown, LinkFailed, Unreachable
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization, timestamp
from whimbrel_client.linking import Invitation, LinkCode
from whimbrel_client.model import LinkedDevice

_WAIT_SECONDS = 120.0
_POLL_SECONDS = 5.0

Stub = device_pb2_grpc.DeviceServiceStub
Token = Callable[[], Awaitable[str]]


class DeviceCalls:
    """The devices of the account, as one of them sees them. Raises CallFailed and Unreachable."""

    def __init__(self, calls: IdentityCalls, token: Token) -> None:
        self._calls = calls
        self._token = token

    async def link(self, code: LinkCode, secret: LinkSecret) -> None:
        """Hand the account to the device that shows the code."""
        metadata = authorization(await self._token())

        async def ask(channel: grpc.aio.Channel) -> device_pb2.CreateLinkTokenResponse:
            request = device_pb2.CreateLinkTokenRequest()
            return await Stub(channel).CreateLinkToken(
                request, timeout=CALL_SECONDS, metadata=metadata
            )

        secret.link_token = (await self._calls.anywhere(ask)).link_token
        # The same bytes at each try: repeating them is harmless.
        request = device_pb2.SendProvisioningRequest(
            address=code.address, ciphertext=code.seal(secret)
        )

        async def send(channel: grpc.aio.Channel) -> None:
            await Stub(channel).SendProvisioning(request, timeout=CALL_SECONDS, metadata=metadata)

        with _link_failing():
            await self._calls.anywhere(send)

    async def devices(self, identity: KeyPair) -> list[LinkedDevice]:
        """All devices of the account."""
        return [
            LinkedDevice(
                one.device_id,
                one.linked_at.ToDatetime(UTC),
                one.last_seen_at.ToDatetime(UTC) if one.HasField("last_seen_at") else None,
                open_name(one.encrypted_name, identity, one.registration_id),
            )
            for one in await self._listed()
        ]

    async def rename(self, device_id: int, name: str, identity: KeyPair) -> None:
        """Name a device. Raises DeviceUnknown, NameTooLong."""
        registrations = {one.device_id: one.registration_id for one in await self._listed()}
        if device_id not in registrations:
            raise _unknown(device_id)
        request = device_pb2.RenameDeviceRequest(
            device_id=device_id,
            encrypted_name=seal_name(name, identity, registrations[device_id]),
        )
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> None:
            await Stub(channel).RenameDevice(request, timeout=CALL_SECONDS, metadata=metadata)

        with _of_device(device_id):
            await self._calls.anywhere(call)

    async def _listed(self) -> Sequence[device_pb2.LinkedDevice]:
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> device_pb2.ListDevicesResponse:
            request = device_pb2.ListDevicesRequest()
            return await Stub(channel).ListDevices(request, timeout=CALL_SECONDS, metadata=metadata)

        return (await self._calls.anywhere(call)).devices

    async def revoke(self, device_id: int) -> None:
        """Unlink a device. Raises DeviceUnknown."""
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> None:
            request = device_pb2.RevokeDeviceRequest(device_id=device_id)
            await Stub(channel).RevokeDevice(request, timeout=CALL_SECONDS, metadata=metadata)

        with _of_device(device_id):
            await self._calls.anywhere(call)


async def invited(calls: IdentityCalls, invitation: Invitation) -> LinkSecret:
    """Wait for the primary. Raises LinkFailed after two minutes, or if what comes is not for us."""
    request = device_pb2.AwaitProvisioningRequest(address=invitation.address)

    async def call(channel: grpc.aio.Channel) -> bytes:
        response = await Stub(channel).AwaitProvisioning(request, timeout=_POLL_SECONDS)
        return response.ciphertext

    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                try:
                    return invitation.open(await calls.anywhere(call))
                except Unreachable:
                    continue  # it has waited before it said so
                except CallFailed as error:
                    if error.reason != "PROVISIONING_EMPTY":
                        raise
    except TimeoutError:
        raise LinkFailed("nobody has scanned the code") from None


async def link(
    calls: IdentityCalls,
    secret: LinkSecret,
    key: Ed25519PrivateKey,
    keys: keys_pb2.DeviceKeys,
    *,
    sealed_name: bytes = b"",
) -> tuple[int, str]:
    """Become a device of the account; returns its id and a first token.

    Raises LinkFailed if the secret is too old or used, TooManyDevices, CallFailed and Unreachable.
    """

    async def call(channel: grpc.aio.Channel) -> device_pb2.LinkDeviceResponse:
        at_ms = calls.now_ms()
        token_hash = hashlib.sha256(secret.link_token).digest()
        signed = b"whimbrel link v1\0" + secret.user_id + token_hash + at_ms.to_bytes(8, "big")
        request = device_pb2.LinkDeviceRequest(
            user_id=secret.user_id,
            link_token=secret.link_token,
            device_public_key=key.public_key().public_bytes_raw(),
            keys=keys,
            encrypted_name=sealed_name,
            signed_at=timestamp(at_ms),
            signature=key.sign(signed),
        )
        return await Stub(channel).LinkDevice(request, timeout=CALL_SECONDS)

    with _link_failing():
        response = await calls.anywhere(call)
    return response.device_id, response.access_token


_LINK_FAILURES = {
    "LINK_TOKEN_INVALID": "the link is too old, or was used: begin again with a new code",
    "PROVISIONING_TAKEN": "this code was answered before: have the new device show another",
}


@contextlib.contextmanager
def _link_failing() -> Iterator[None]:
    """Tell what a person can do about it."""
    try:
        yield
    except CallFailed as error:
        if error.reason in _LINK_FAILURES:
            raise LinkFailed(_LINK_FAILURES[error.reason]) from error
        raise


@contextlib.contextmanager
def _of_device(device_id: int) -> Iterator[None]:
    """An unknown device is the one that was named, not this one."""
    try:
        yield
    except CallFailed as error:
        if error.reason == "DEVICE_UNKNOWN":
            raise _unknown(device_id) from error
        raise


def _unknown(device_id: int) -> DeviceUnknown:
    return DeviceUnknown("DEVICE_UNKNOWN", f"the account has no device {device_id}")
