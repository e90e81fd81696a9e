"""The API: what an application does with Whimbrel."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path

from whimbrel.content.v1.content_pb2 import Content
from whimbrel.content.v1.link_pb2 import LinkSecret
from whimbrel_client.clock import ServerClock
from whimbrel_client.connection import Connection
from whimbrel_client.crypto import SafetyNumber, safety_number
from whimbrel_client.errors import (
    CallFailed,
    IdentityUnknown,
    LinkFailed,
    NotConfirmed,
    SendRefused,
)
from whimbrel_client.grpc_channel import authorities
from whimbrel_client.identity import IdentityCalls, Tokens, calls_to
from whimbrel_client.joining import device_key, linked, opened, registered
from whimbrel_client.linking import LinkCode
from whimbrel_client.media.files import Files
from whimbrel_client.model import (
    Alarm,
    Conversation,
    IdentityChange,
    LinkedDevice,
    Message,
    Outcome,
    OutgoingMessage,
    Receipt,
    SendState,
    Tick,
)
from whimbrel_client.parts import Parts
from whimbrel_client.payload import text
from whimbrel_client.profile import Account, Profile, gateways_of
from whimbrel_client.registering import Applicant, CodeSent, request_code
from whimbrel_client.rekeying import change_key
from whimbrel_client.reporting import ReportReason
from whimbrel_client.sessions import DeviceId
from whimbrel_client.store import Store
from whimbrel_client.store_key import BY_ITSELF, Protection

_PAGE = 256
A_MONTH = timedelta(days=30)


class Client:
    """One device of one account, connected for as long as the block of `connect` lasts.

    All that was sent is safe in the profile's store before `send` returns, and goes out as soon as
    there is a gateway. All that arrives is in the store before the mesh is told that it arrived.
    """

    def __init__(self, account: Account, parts: Parts, *, read_receipts: bool) -> None:
        """For `connect` only."""
        self._account = account
        self._parts = parts
        self._life, self._store = parts.life, parts.store
        self._read_receipts = read_receipts
        self.push, self.mutes, self.history = parts.push, parts.mutes, parts.history
        self.groups, self.channels, self.presences = parts.groups, parts.channels, parts.presences
        self.files = Files(parts.store.uploads, parts.media_calls, self.send)

    @staticmethod
    async def request_code(
        number: str,
        *,
        gateways: Sequence[str],
        ca: Path | str | None = None,
    ) -> CodeSent:
        """Have a one-time code sent to a phone number, which `register` takes.

        The number has the form +<country><number>. `gateways`: https://host:port, or host:port in
        the clear. `ca`: a file with the authorities, PEM, that certify them, if they are not known
        to all the world; what does not say http:// is by TLS then. Raises BadAddress, RateLimited,
        CallFailed (FIELD_INVALID and others) and Unreachable.
        """
        calls = calls_to(gateways, ca)
        return await request_code(calls, number)

    @staticmethod
    async def register(
        profile: Path | str,
        handle: str,
        *,
        gateways: Sequence[str],
        number: str = "",
        code: str = "",
        pin: str = "",
        ca: Path | str | None = None,
        protection: Protection = BY_ITSELF,
    ) -> Account:
        """Make an account in this folder, or finish what an earlier call began.

        `number`, and the `code` that was sent to it: where the mesh asks for them, and to get the
        number's account back on a new device. `pin`: if that account has a registration lock.
        `gateways` and `ca`: as for `request_code`, and kept for `connect`.
        `protection`: how the key of the local store is kept. Raises BadAddress, HandleTaken,
        CodeInvalid, NumberTaken, RegistrationLocked, RateLimited, CallFailed (HANDLE_INVALID and
        others), Unreachable, ProfileInUse and StoreKeyFailed.
        """
        folder = Profile(profile, protection)
        calls = calls_to(gateways, ca)
        return await registered(folder, calls, Applicant(handle, number, code, pin))

    @staticmethod
    async def link(
        profile: Path | str,
        *,
        gateways: Sequence[str],
        show: Callable[[str], None],
        name: str = "",
        ca: Path | str | None = None,
        protection: Protection = BY_ITSELF,
    ) -> Account:
        """Make this folder a device of somebody's account.

        `show` gets a code that the primary gives to its `link_device` within two minutes.
        `name`: what the account's devices call this one. `gateways` and `ca`: as for
        `request_code`, and kept for `connect`. Raises BadAddress, LinkFailed, TooManyDevices,
        NameTooLong, CallFailed, Unreachable, ProfileInUse and StoreKeyFailed.
        """
        calls = calls_to(gateways, ca)
        return await linked(Profile(profile, protection), calls, show=show, name=name)

    @staticmethod
    async def change_protection(profile: Path | str, *, now: Protection, then: Protection) -> None:
        """Let a new key protect the local store of the profile, which nobody may have open.

        `now` opens it so far, `then` from now on. A crash leaves it opened by one of them. Raises
        ProfileMissing, ProfileInUse, StoreFailed and StoreKeyFailed.
        """
        folder = Profile(profile)
        folder.account()
        await asyncio.to_thread(change_key, folder.store_path, now, then)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        profile: Path | str,
        *,
        gateways: Sequence[str] = (),
        read_receipts: bool = True,
        ca: Path | str | None = None,
        protection: Protection = BY_ITSELF,
    ) -> AsyncIterator["Client"]:
        """Open the profile and stay connected; leaving the block ends the stream politely.

        Does not wait for the mesh: what can be done offline is; `online` waits.
        `gateways` and `ca`: none: those with which the account was registered.
        `read_receipts=False`: what is read on this device is told to nobody.
        `protection`: has the passphrase, if the local store needs one.
        Raises ProfileMissing, ProfileInUse, StoreTooNew, BadAddress and StoreKeyFailed.
        """
        folder = Profile(profile, protection)
        account, clock = folder.account(), ServerClock()
        trusted = authorities(ca) or account.ca
        addresses = gateways_of(gateways, account, trusted)
        calls = IdentityCalls(addresses, clock=clock, ca=trusted)
        own = DeviceId(account.user_id, account.device_id)
        async with opened(Store(folder.store_path, protection, own=own)) as store:
            key = await device_key(folder, store)
            tokens = Tokens(account, key, calls=calls, clock=clock)
            parts = Parts(account, store=store, clock=clock, tokens=tokens, calls=calls)
            await parts.exchange.restore(with_reads=read_receipts)
            connection = Connection(
                addresses,
                tokens=tokens,
                exchange=parts.exchange,
                ca=trusted,
                on_change=parts.connection_changed,
            )
            async with parts.connected(connection):
                yield cls(account, parts, read_receipts=read_receipts)

    # Who and where.

    @property
    def user_id(self) -> bytes:
        """The own account."""
        return self._account.user_id

    @property
    def device_id(self) -> int:
        """This device of it; 1 is the primary."""
        return self._account.device_id

    @property
    def handle(self) -> str:
        """The own handle."""
        return self._account.handle

    @property
    def is_online(self) -> bool:
        """Whether a stream is open right now."""
        return self._parts.gateway is not None

    @property
    def gateway(self) -> str | None:
        """The address of the gateway that has the stream right now."""
        return self._parts.gateway

    async def online(self) -> None:
        """Return when a stream is open. Raises what has ended the client, if anything has."""
        while self._parts.gateway is None:
            changed = self._parts.online.next_ring()
            self._life.raise_if_ended()
            await changed.wait()

    async def user_named(self, handle: str) -> bytes:
        """The account that has the handle; remembered. Raises HandleUnknown, Unreachable."""
        return await self._parts.user_named(handle)

    async def user_at(self, number: str) -> bytes:
        """The account that has the phone number now; not remembered, as numbers change hands.

        Raises HandleUnknown, RateLimited, CallFailed (FIELD_INVALID) and Unreachable.
        """
        return await self._parts.accounts.user_at(number)

    async def set_registration_lock(self, pin: str) -> None:
        """From now on the number's account goes to a new device with this PIN only; empty: without.

        Only the primary may. Raises CallFailed (CALLER_NOT_ALLOWED) and Unreachable.
        """
        await self._parts.accounts.set_registration_lock(pin)

    async def handle_of(self, user_id: bytes) -> str | None:
        """The handle of an account that was looked up here once."""
        return self.handle if user_id == self.user_id else await self._store.handle_of(user_id)

    # Sending.

    async def send(self, to: bytes | str, what: str | Content) -> OutgoingMessage:
        """Queue words, or any content, for a person, named by user id or handle.

        On return the message is on the disk; it goes out by itself, also after a crash, encrypted
        for each device of then, in the order of the calls. Raises BodyTooLarge, NotTheAuthor and,
        for a new handle, what `user_named` does.
        """
        (message,) = await self.send_all(to, [what])
        return message

    async def send_all(
        self, to: bytes | str, what: Iterable[str | Content]
    ) -> list[OutgoingMessage]:
        """Queue several messages, in order, all or none; far cheaper than one by one."""
        user_id = await self.user_named(to) if isinstance(to, str) else to
        self._life.raise_if_ended()
        contents = (text(one) if isinstance(one, str) else one for one in what)
        return await self._parts.outgoing.queue(user_id, contents)

    async def accepted(self, message: OutgoingMessage) -> Outcome:
        """Wait until the mesh has the message, durably. Raises SendRefused, NotConfirmed.

        If the client ends first, raises ClientClosed or what ended it; the message stays queued.
        """
        while message.outcome is None:
            self._life.raise_if_ended()
            await self._parts.outgoing.change(message)
        if message.outcome.state is SendState.REFUSED:
            raise SendRefused(message.outcome.reason or "")
        if message.outcome.state is SendState.NOT_CONFIRMED:
            raise NotConfirmed("the message was tried and never answered")
        return message.outcome

    async def outgoing(self, after: int = 0, *, limit: int = _PAGE) -> list[OutgoingMessage]:
        """Own messages above a local id, oldest first, also those of earlier runs."""
        rows = await self._store.outgoing(after, limit=limit)
        return [self._parts.outgoing.known(row) for row in rows]

    async def tick(self, message: OutgoingMessage) -> Tick:
        """What a person sees beside the message: waiting, sent, delivered or read."""
        return await self._store.tick(message.local_id)

    # Receiving.

    def messages(
        self, *, after: int = 0, conversation: bytes | None = None
    ) -> AsyncGenerator[Message, None]:
        """All received messages above the cursor, in local order, then each as it arrives.

        An application that keeps `message.cursor` in the same transaction as what it does with the
        message, and resumes from it, does it exactly once. Raises what ends the client.
        """
        read = partial(self._store.messages, limit=_PAGE, conversation=conversation)
        return self._life.each(self._parts.arrived, read, after, attrgetter("cursor"))

    def receipts(self, *, after: int = 0) -> AsyncGenerator[Receipt, None]:
        """The receipts above a version, lowest first, then each as it changes.

        Only the newest of each conversation is kept: it says all that the earlier ones said.
        """
        read = partial(self._store.receipts, limit=_PAGE)
        return self._life.each(self._parts.receipted, read, after, attrgetter("version"))

    async def last_of(self, user_id: bytes, limit: int) -> list[Message]:
        """The last messages that a person has sent to the direct chat, oldest first."""
        return await self._store.last_of(user_id, limit)

    async def report(
        self, user_id: bytes, reason: ReportReason, messages: Sequence[Message] = ()
    ) -> None:
        """Report an account to the operators of the mesh, who see these words of theirs decrypted.

        Ask the person first. At most 20 messages that the account has sent, 64 KiB in all. Raises
        ValueError for other messages, RateLimited, CallFailed (RECIPIENT_UNKNOWN, FIELD_INVALID)
        and Unreachable.
        """
        await self._parts.reporting.report(user_id, reason, messages)

    async def mark_read(self, conversation: bytes, up_to_seq: int) -> None:
        """A person has read the conversation up to here; the mesh is told, now or later."""
        seq = await self._store.mark_read(conversation, up_to_seq, is_told=self._read_receipts)
        if seq and self._read_receipts:
            self._parts.exchange.reads.want(conversation, seq)
            self._parts.exchange.work.set()

    async def conversations(self) -> list[Conversation]:
        """All conversations that hold something, with what is unread and what waits."""
        return await self._store.conversations(self.user_id)

    async def alarms(self) -> list[Alarm]:
        """Every place in a conversation that two messages have claimed; should be empty."""
        return await self._store.alarms()

    # Whom one talks to.

    def identity_changes(self, *, after: int = 0) -> AsyncGenerator[IdentityChange, None]:
        """Accounts that came with another identity key than before, then each as it happens."""
        read = self._store.keys.identity_changes
        return self._life.each(self._parts.changed, read, after, attrgetter("cursor"))

    async def saw_identity_change(self, change: IdentityChange) -> None:
        """The person was told of the change, and need not be told again: `is_seen` from now on."""
        await self._store.keys.saw_identity_change(change.cursor)

    async def safety_number(self, user_id: bytes) -> SafetyNumber:
        """What two people compare. Raises IdentityUnknown before the first message either way."""
        own, theirs = await self._store.keys.own_keys(), await self._store.keys.identity(user_id)
        if theirs is None:
            raise IdentityUnknown("nothing was exchanged with this account yet")
        return await asyncio.to_thread(
            safety_number,
            local_id=self.user_id,
            local_identity=own.device.identity.public,
            remote_id=user_id,
            remote_identity=theirs,
        )

    # The own devices.

    async def link_device(self, code: str, *, history: timedelta = A_MONTH) -> None:
        """Hand this account to the device that shows the code. Only the primary may.

        Whoever holds that device then reads and writes as this person, and gets what was said in
        the time of `history` (zero: nothing; timedelta.max: all) whenever both are connected.
        Raises LinkFailed, TooManyDevices, CallFailed (CALLER_NOT_ALLOWED) and Unreachable.
        """
        link_code, identity = LinkCode.read(code), await self._parts.identity()
        secret = LinkSecret(
            user_id=self.user_id,
            handle=self.handle,
            identity_private_key=identity.private,
            history_token=await self.history.offered(history),
        )
        try:
            await self._parts.devices.link(link_code, secret)
        except (LinkFailed, CallFailed):
            await self.history.withdraw(secret.history_token)
            raise

    async def devices(self) -> list[LinkedDevice]:
        """The devices of this account. Raises CallFailed and Unreachable."""
        return await self._parts.devices.devices(await self._parts.identity())

    async def rename_device(self, device_id: int, name: str) -> None:
        """Name a device; only the own devices can read it. Raises DeviceUnknown, NameTooLong."""
        await self._parts.devices.rename(device_id, name, await self._parts.identity())

    async def revoke_device(self, device_id: int) -> None:
        """Unlink a device: the primary any but itself, another one itself. Raises DeviceUnknown."""
        await self._parts.devices.revoke(device_id)
        await self.history.revoked(device_id)
