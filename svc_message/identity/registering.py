"""Registering: who gets a handle, a number, and the account that has them.

An account is written first and claims its handle after that. Whoever claims second removes its own
account; a crash between the two leaves an account that the sweep removes. A number that has an
account leads to that account again, with another primary device, unless its PIN is missing.
"""

import hmac
from dataclasses import dataclass, field

import structlog

from mesh.caller import Caller
from mesh.clock import Clock, SystemClock
from mesh.errors import InvalidArgument, Unavailable
from mesh.ids import new_ulid, ulid_text
from svc_message.identity.codes import Codes
from svc_message.identity.devices_model import DeviceRevoked
from svc_message.identity.ending import Sessions, end_sessions
from svc_message.identity.keys_model import DeviceKeys
from svc_message.identity.locks import RegistrationLocks
from svc_message.identity.model import (
    HandleTaken,
    NewAccount,
    NumberTaken,
    Registered,
    SigningDevice,
)
from svc_message.identity.numbers import Numbers, number_hash
from svc_message.identity.signing import (
    check_fresh,
    check_signature,
    register_proof,
)
from svc_message.identity.store import AccountGone, AccountStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Application:
    """What somebody registers with; `signed_at` in milliseconds."""

    handle: str
    public_key: bytes
    signed_at: int
    signature: bytes = field(repr=False)
    phone_number: str = field(default="", repr=False)
    code: str = field(default="", repr=False)
    registration_lock: bytes = field(default=b"", repr=False)
    keys: DeviceKeys | None = field(default=None, repr=False)


class Registering:
    """Makes accounts, and gives them back to their owners."""

    def __init__(
        self,
        store: AccountStore,
        numbers: Numbers,
        codes: Codes,
        locks: RegistrationLocks,
        sessions: Sessions,
        *,
        demands_number: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._numbers = numbers
        self._codes = codes
        self._locks = locks
        self._sessions = sessions
        self._demands_number = demands_number
        self._clock = clock or SystemClock()

    async def register(self, wanted: Application) -> SigningDevice:
        """The primary device of the account with this handle, key and number, new or not.

        Raises HandleTaken, SignatureInvalid, SignatureStale, CodeInvalid,
        NumberTaken, RegistrationLocked, RateLimited, KeyInvalid, InvalidArgument, Unavailable.
        """
        number = self._checked(wanted)
        owner = await self._store.find_handle(wanted.handle)
        known = None if owner is None else await self._store.registered(owner)
        if known is not None and _has_key(known, wanted) and number in {None, known.number_hash}:
            return await self._again(known, wanted)
        if number is not None:
            await self._codes.check(number, wanted.code, for_key=wanted.public_key)
            return await self._with_number(number, known, wanted)
        if self._demands_number:
            raise InvalidArgument(
                "a phone number is needed",
                metadata={"field": "phone_number", "allowed": "a number and its code"},
            )
        return await self._by_handle(wanted)

    async def change_number(self, caller: Caller, phone_number: str, code: str) -> None:
        """Move the caller's account to another number.

        Raises PermissionDenied, DeviceRevoked, CodeInvalid, NumberTaken, Unavailable.
        """
        caller.demand_primary()
        number = number_hash(phone_number)
        account = await self._store.registered(caller.user_id)
        device = None if account is None else await self._store.signing_device(caller.user_id)
        if account is None or device is None or not caller.is_still(device.credential_version):
            raise DeviceRevoked("the device was unlinked, or its credential replaced")
        if number == account.number_hash:
            return
        await self._codes.check(number, code, for_key=device.public_key)
        await self._numbers.give(number, account)

    def _checked(self, wanted: Application) -> bytes | None:
        """The number, if there is one and all is as it has to be before any shard is asked."""
        number = number_hash(wanted.phone_number) if wanted.phone_number else None
        check_fresh(wanted.signed_at, self._clock.now())
        proof = register_proof(
            wanted.handle, wanted.signed_at, phone_number=wanted.phone_number, keys=wanted.keys
        )
        check_signature(wanted.public_key, wanted.signature, proof)
        if wanted.keys is not None:
            wanted.keys.check()
        return number

    async def _with_number(
        self, number: bytes, known: Registered | None, wanted: Application
    ) -> SigningDevice:
        """The account of who has shown the number's code."""
        holder = await self._numbers.holder(number)
        if holder is not None:
            if not _has_key(holder, wanted):
                await self._locks.check(holder.user_id, wanted.registration_lock)
            if holder.handle != wanted.handle:
                # Whoever has the number may know what to ask for: it is the way to this account.
                raise NumberTaken(
                    "the number has an account with another handle",
                    metadata={"handle": holder.handle},
                )
            return await self._again(holder, wanted)
        if known is not None and _has_key(known, wanted):
            device = await self._again(known, wanted)
        else:
            device = await self._by_handle(wanted)
        account = await self._store.registered(device.user_id)
        if account is None:
            raise Unavailable("the account is about to be gone")
        await self._numbers.give(number, account)
        return device

    async def _again(self, account: Registered, wanted: Application) -> SigningDevice:
        """The account with this device and these keys, whatever they were before."""
        if wanted.keys is not None or not _has_key(account, wanted):
            try:
                ended = await self._store.register_again(
                    account.user_id, wanted.public_key, wanted.keys
                )
            except AccountGone:
                raise Unavailable("the account is about to be gone") from None
            await end_sessions(self._sessions, ended)
        return await self._own(account.user_id, wanted)

    async def _by_handle(self, wanted: Application) -> SigningDevice:
        owner = await self._store.find_handle(wanted.handle)
        if owner is None:
            owner = await self._claim(wanted)
        return await self._own(owner, wanted)

    async def _claim(self, wanted: Application) -> bytes:
        user_id = new_ulid()
        await self._store.make_account(
            NewAccount(user_id, wanted.handle, wanted.public_key, keys=wanted.keys)
        )
        owner = await self._store.claim_handle(wanted.handle, user_id)
        if owner != user_id:
            await self._give_up(user_id)
        return owner

    async def _give_up(self, user_id: bytes) -> None:
        try:
            await self._store.remove_unclaimed(user_id)
        except Unavailable:
            log.info("a spare account is left to the sweep", user_id=ulid_text(user_id))

    async def _own(self, owner: bytes, wanted: Application) -> SigningDevice:
        """The owner's primary device, if it has this key."""
        try:
            device = await self._store.signing_device(owner)
            if device is None or not hmac.compare_digest(device.public_key, wanted.public_key):
                raise HandleTaken("the handle belongs to an account with another key")
            await self._store.confirm_handle(owner)
        except AccountGone:
            # The sweep took the account while its claim was late by an hour.
            await self._store.release_handle(wanted.handle, owner)
            raise Unavailable("the handle is about to be free") from None
        return device


def _has_key(account: Registered, wanted: Application) -> bool:
    return hmac.compare_digest(account.public_key, wanted.public_key)
