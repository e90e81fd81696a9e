"""IdentityService on the wire: turns requests into calls of the rules, and decides nothing."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.caller import Caller, caller_of
from svc_message.identity.accounts import Accounts
from svc_message.identity.codes import Codes
from svc_message.identity.deleting import Deleting
from svc_message.identity.finding import Finding
from svc_message.identity.keys_wire import read_device_keys
from svc_message.identity.locks import RegistrationLocks
from svc_message.identity.personal import Audience, LastSeen, Personal, Privacy
from svc_message.identity.registering import Application, Registering
from svc_message.identity.sweep import Sweep
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc

E = TypeVar("E", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class Identity:
    """The rules behind IdentityService."""

    accounts: Accounts
    registering: Registering
    codes: Codes
    locks: RegistrationLocks
    finding: Finding
    personal: Personal
    deleting: Deleting
    sweep: Sweep


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Serves IdentityService to the gateways."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def Register(
        self, request: identity_pb2.RegisterRequest, context: Any
    ) -> identity_pb2.RegisterResponse:
        access = await self._identity.accounts.register(_read_application(request))
        return identity_pb2.RegisterResponse(
            user_id=access.user_id,
            device_id=access.device_id,
            access_token=access.token,
            expires_at=_timestamp(access.expires_at),
        )

    async def RequestCode(
        self, request: identity_pb2.RequestCodeRequest, context: Any
    ) -> identity_pb2.RequestCodeResponse:
        issued = await self._identity.codes.request(request.phone_number)
        return identity_pb2.RequestCodeResponse(
            expires_at=_timestamp(issued.expires_at), next_at=_timestamp(issued.next_at)
        )

    async def Refresh(
        self, request: identity_pb2.RefreshRequest, context: Any
    ) -> identity_pb2.RefreshResponse:
        access = await self._identity.accounts.refresh(
            request.user_id,
            request.device_id,
            signed_at=_milliseconds(request.signed_at),
            signature=request.signature,
        )
        return identity_pb2.RefreshResponse(
            access_token=access.token, expires_at=_timestamp(access.expires_at)
        )

    async def LookUp(
        self, request: identity_pb2.LookUpRequest, context: Any
    ) -> identity_pb2.LookUpResponse:
        caller = await self._linked(context)
        found = await self._identity.finding.look_up(
            caller.user_id, handle=request.handle, phone_number=request.phone_number
        )
        return identity_pb2.LookUpResponse(user_id=found)

    async def DiscoverContacts(
        self, request: identity_pb2.DiscoverContactsRequest, context: Any
    ) -> identity_pb2.DiscoverContactsResponse:
        caller = await self._linked(context)
        found = await self._identity.finding.discover(caller.user_id, request.number_hashes)
        return identity_pb2.DiscoverContactsResponse(
            contacts=[
                identity_pb2.Contact(number_hash=number, user_id=user)
                for number, user in found.items()
            ]
        )

    async def SetProfile(
        self, request: identity_pb2.SetProfileRequest, context: Any
    ) -> identity_pb2.SetProfileResponse:
        await self._identity.personal.set_profile(caller_of(context), request.encrypted_profile)
        return identity_pb2.SetProfileResponse()

    async def GetProfile(
        self, request: identity_pb2.GetProfileRequest, context: Any
    ) -> identity_pb2.GetProfileResponse:
        caller = await self._linked(context)
        profile = await self._identity.personal.profile_of(request.user_id, caller)
        return identity_pb2.GetProfileResponse(encrypted_profile=profile)

    async def SetPrivacy(
        self, request: identity_pb2.SetPrivacyRequest, context: Any
    ) -> identity_pb2.SetPrivacyResponse:
        privacy = Privacy(
            _choice(Audience, request.findable_by_handle),
            _choice(Audience, request.findable_by_number),
            _choice(Audience, request.addable_to_groups),
            _choice(Audience, request.presence_visible_to),
            _choice(LastSeen, request.last_seen),
        )
        await self._identity.personal.set_privacy(caller_of(context), privacy)
        return identity_pb2.SetPrivacyResponse()

    async def SetRegistrationLock(
        self, request: identity_pb2.SetRegistrationLockRequest, context: Any
    ) -> identity_pb2.SetRegistrationLockResponse:
        await self._identity.locks.set(caller_of(context), request.registration_lock)
        return identity_pb2.SetRegistrationLockResponse()

    async def ChangeNumber(
        self, request: identity_pb2.ChangeNumberRequest, context: Any
    ) -> identity_pb2.ChangeNumberResponse:
        await self._identity.registering.change_number(
            caller_of(context), request.phone_number, request.code
        )
        return identity_pb2.ChangeNumberResponse()

    async def DeleteAccount(
        self, request: identity_pb2.DeleteAccountRequest, context: Any
    ) -> identity_pb2.DeleteAccountResponse:
        await self._identity.deleting.delete(caller_of(context))
        return identity_pb2.DeleteAccountResponse()

    async def Block(
        self, request: identity_pb2.BlockRequest, context: Any
    ) -> identity_pb2.BlockResponse:
        await self._identity.personal.block(caller_of(context), request.user_id)
        return identity_pb2.BlockResponse()

    async def Unblock(
        self, request: identity_pb2.UnblockRequest, context: Any
    ) -> identity_pb2.UnblockResponse:
        await self._identity.personal.unblock(caller_of(context), request.user_id)
        return identity_pb2.UnblockResponse()

    async def ListBlocked(
        self, request: identity_pb2.ListBlockedRequest, context: Any
    ) -> identity_pb2.ListBlockedResponse:
        blocked = await self._identity.personal.blocked(caller_of(context))
        return identity_pb2.ListBlockedResponse(user_ids=blocked)

    async def SetMute(
        self, request: identity_pb2.SetMuteRequest, context: Any
    ) -> identity_pb2.SetMuteResponse:
        until = request.until.ToDatetime(tzinfo=UTC) if request.HasField("until") else None
        caller, personal = caller_of(context), self._identity.personal
        if request.WhichOneof("conversation") == "group_id":
            await personal.mute_group(caller, request.group_id, until)
        else:
            await personal.mute(caller, request.user_id, until)
        return identity_pb2.SetMuteResponse()

    async def _linked(self, context: Any) -> Caller:
        """The device that calls, if its credential still holds."""
        caller = caller_of(context)
        await self._identity.finding.check_caller(caller)
        return caller


def _read_application(request: identity_pb2.RegisterRequest) -> Application:
    return Application(
        request.handle,
        request.device_public_key,
        _milliseconds(request.signed_at),
        request.signature,
        phone_number=request.phone_number,
        code=request.code,
        registration_lock=request.registration_lock,
        keys=read_device_keys(request.keys) if request.HasField("keys") else None,
    )


def _choice(kind: type[E], value: int) -> E | None:
    return kind(value) if value else None


def _milliseconds(timestamp: Timestamp) -> int:
    # Not ToMilliseconds, which refuses what no clock shows; a strange time is simply stale.
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
