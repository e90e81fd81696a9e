"""DeviceService on the wire: turns requests into calls of Devices, and decides nothing."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import grpc

from mesh.caller import caller_of
from svc_message.identity.devices import Devices
from svc_message.identity.devices_model import LinkedDevice
from svc_message.identity.devices_wiring import DeviceParts
from svc_message.identity.keys_servicer import KeyServicer
from svc_message.identity.keys_wire import read_device_keys
from svc_message.identity.provisioning import Provisioning
from svc_message.to_gateway import fill_time
from whimbrel.identity.v1 import device_pb2, device_pb2_grpc, keys_pb2_grpc

# Less than a gateway gives a call, so that the caller hears why it got nothing.
_MOST_WAIT = timedelta(seconds=4)
_TO_ANSWER = timedelta(milliseconds=500)


def add_to_server(parts: DeviceParts, server: grpc.aio.Server) -> None:
    """Serve DeviceService and KeyService there."""
    servicer = DeviceServicer(parts.devices, parts.provisioning)
    device_pb2_grpc.add_DeviceServiceServicer_to_server(servicer, server)
    keys_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(parts.keys), server)


class DeviceServicer(device_pb2_grpc.DeviceServiceServicer):
    """Serves DeviceService to the gateways."""

    def __init__(self, devices: Devices, provisioning: Provisioning) -> None:
        self._devices = devices
        self._provisioning = provisioning

    async def AwaitProvisioning(
        self, request: device_pb2.AwaitProvisioningRequest, context: Any
    ) -> device_pb2.AwaitProvisioningResponse:
        ciphertext = await self._provisioning.take(request.address, within=_patience(context))
        return device_pb2.AwaitProvisioningResponse(ciphertext=ciphertext)

    async def SendProvisioning(
        self, request: device_pb2.SendProvisioningRequest, context: Any
    ) -> device_pb2.SendProvisioningResponse:
        await self._devices.demand_primary(caller_of(context))
        await self._provisioning.leave(request.address, request.ciphertext)
        return device_pb2.SendProvisioningResponse()

    async def CreateLinkToken(
        self, request: device_pb2.CreateLinkTokenRequest, context: Any
    ) -> device_pb2.CreateLinkTokenResponse:
        created = await self._devices.create_link_token(caller_of(context))
        response = device_pb2.CreateLinkTokenResponse(link_token=created.token)
        fill_time(response.expires_at, created.expires_at)
        return response

    async def LinkDevice(
        self, request: device_pb2.LinkDeviceRequest, context: Any
    ) -> device_pb2.LinkDeviceResponse:
        signed_at = request.signed_at
        access = await self._devices.link(
            request.user_id,
            request.link_token,
            request.device_public_key,
            keys=read_device_keys(request.keys),
            name=request.encrypted_name,
            # By hand: a timestamp out of range is stale, not an error of ours.
            signed_at=signed_at.seconds * 1000 + signed_at.nanos // 1_000_000,
            signature=request.signature,
        )
        response = device_pb2.LinkDeviceResponse(
            device_id=access.device_id, access_token=access.token
        )
        fill_time(response.expires_at, access.expires_at)
        return response

    async def ListDevices(
        self, request: device_pb2.ListDevicesRequest, context: Any
    ) -> device_pb2.ListDevicesResponse:
        response = device_pb2.ListDevicesResponse()
        for device in await self._devices.list(caller_of(context)):
            _fill(response.devices.add(), device)
        return response

    async def RenameDevice(
        self, request: device_pb2.RenameDeviceRequest, context: Any
    ) -> device_pb2.RenameDeviceResponse:
        caller = caller_of(context)
        await self._devices.rename(caller, request.device_id, request.encrypted_name)
        return device_pb2.RenameDeviceResponse()

    async def RevokeDevice(
        self, request: device_pb2.RevokeDeviceRequest, context: Any
    ) -> device_pb2.RevokeDeviceResponse:
        await self._devices.revoke(caller_of(context), request.device_id)
        return device_pb2.RevokeDeviceResponse()


def _patience(context: Any) -> timedelta:
    left: float | None = context.time_remaining()
    if left is None:
        return _MOST_WAIT
    return min(_MOST_WAIT, max(timedelta(), timedelta(seconds=left) - _TO_ANSWER))


def _fill(into: device_pb2.LinkedDevice, device: LinkedDevice) -> None:
    into.device_id, into.registration_id = device.device_id, device.registration_id
    into.encrypted_name = device.encrypted_name
    fill_time(into.linked_at, device.linked_at)
    if device.last_seen_on is not None:
        fill_time(into.last_seen_at, datetime.combine(device.last_seen_on, time(), UTC))
