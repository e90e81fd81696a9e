"""A mesh in memory behind real gateways: Connect and IdentityService as the protos tell them.

One device an account. It keeps every promise of the stream, and breaks one when a test says so.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import WhimbrelError, abort
from mesh.statuses import statuses
from whimbrel.error.v1 import reason_pb2
from whimbrel.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from whimbrel.identity.v1 import (
    identity_pb2,
    identity_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
)
from whimbrel.message.v1 import envelope_pb2, receipt_pb2, send_pb2
from whimbrel_client.ranges import SeqRanges

Event = gateway_pb2.ServerEvent
Judge = Callable[[send_pb2.Send], send_pb2.Rejected | None]


@dataclass
class FakeAccount:
    handle: str
    user_id: bytes
    public_key: bytes
    queue: list[envelope_pb2.Envelope] = field(default_factory=list)
    head_pos: int = 0
    acked_pos: int = 0
    epoch: int = 0
    receipt_version: int = 0
    receipts: dict[bytes, receipt_pb2.Receipt] = field(default_factory=dict)
    session: "FakeSession | None" = None
    # Device 1 is the one that has the queue.
    devices: dict[int, "FakeKeys"] = field(default_factory=dict)
    fetches: int = 0

    @property
    def registrations(self) -> dict[int, int]:
        return {number: one.keys.registration_id for number, one in self.devices.items()}


@dataclass
class FakeKeys:
    """The public keys of a device."""

    keys: keys_pb2.DeviceKeys
    one_time: list[keys_pb2.EcPrekey] = field(default_factory=list)
    one_time_kem: list[keys_pb2.KemPrekey] = field(default_factory=list)

    def bundle(self, device_id: int) -> keys_pb2.KeyBundle:
        bundle = keys_pb2.KeyBundle(
            device_id=device_id,
            registration_id=self.keys.registration_id,
            signed_prekey=self.keys.signed_prekey,
            kem_prekey=self.keys.last_resort_prekey,
        )
        if self.one_time:
            bundle.one_time_prekey.CopyFrom(self.one_time.pop(0))
        if self.one_time_kem:
            bundle.kem_prekey.CopyFrom(self.one_time_kem.pop(0))
        return bundle


@dataclass
class FakeConversation:
    last_seq: int = 0
    # By sender and client_message_id: the content and the first answer.
    accepted: dict[tuple[bytes, bytes], tuple[bytes, send_pb2.Accepted]] = field(
        default_factory=dict
    )
    senders: dict[int, bytes] = field(default_factory=dict)


def rejection(
    send: send_pb2.Send, reason: str, retry_after: float | None = None
) -> send_pb2.Rejected:
    rejected = send_pb2.Rejected(
        client_message_id=send.client_message_id,
        reason=reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"),
    )
    if retry_after is not None:
        rejected.retry_after.CopyFrom(Duration(nanos=int(retry_after * 1e9)))
    return rejected


class FakeMesh:
    """What the gateways share: accounts, conversations, queues, receipts."""

    def __init__(self) -> None:
        self.accounts: dict[bytes, FakeAccount] = {}
        self.handles: dict[str, FakeAccount] = {}
        self.conversations: dict[bytes, FakeConversation] = {}
        self.token_seconds = 600.0
        self.clock_ahead = 0.0
        self.refuse_tokens = False
        self.limits = gateway_pb2.Limits(
            max_unacked=256,
            max_outstanding_sends=500,
            max_outstanding_bytes=1024 * 1024,
            max_body_bytes=192 * 1024,
            max_frame_bytes=256 * 1024,
        )
        # Asked before a send is accepted.
        self.judge: Judge = lambda send: None
        # Every send that came, in order, and what each stream's hello said.
        self.sends: list[tuple[bytes, send_pb2.Send]] = []
        self.hellos: list[gateway_pb2.Hello] = []
        self.reads: list[tuple[bytes, receipt_pb2.Read]] = []
        self.acks: list[tuple[bytes, int]] = []
        self.outstanding: dict[bytes, int] = {}
        self.ends: list[str] = []
        # The sends by their client_message_id, in the order in which they first came.
        self.firsts: dict[bytes, int] = {}
        # What a delivery's ciphertext is turned into on the way.
        self.tamper: Callable[[bytes], bytes] = lambda ciphertext: ciphertext
        # Answers are lost on the way while this is set.
        self.swallow_answers = False

    def now(self) -> float:
        return time.time() + self.clock_ahead

    def timestamp(self, ahead: float = 0.0) -> Timestamp:
        moment = Timestamp()
        moment.FromMilliseconds(int((self.now() + ahead) * 1000))
        return moment

    def conversation(self, one: bytes, other: bytes) -> FakeConversation:
        low, high = sorted((one, other))
        key = hashlib.sha256(b"direct" + low + high).digest()[:16]
        return self.conversations.setdefault(key, FakeConversation())

    def accept(self, sender: bytes, send: send_pb2.Send) -> Event:
        """The answer to a send, and all its effects."""
        self.sends.append((sender, send))
        self.firsts.setdefault(send.client_message_id, len(self.firsts) + 1)
        refused = self.judge(send)
        if refused is not None:
            return Event(rejected=refused)
        if send.user_id not in self.accounts:
            return Event(rejected=rejection(send, "RECIPIENT_UNKNOWN"))
        return self._accept_known_or_new(sender, send)

    def _accept_known_or_new(self, sender: bytes, send: send_pb2.Send) -> Event:
        conversation = self.conversation(sender, send.user_id)
        content = hashlib.sha256(send.user_id + send.per_device.SerializeToString()).digest()
        known = conversation.accepted.get((sender, send.client_message_id))
        if known is not None and known[0] != content:
            conflict = rejection(send, "CLIENT_MESSAGE_ID_CONFLICT")
            conflict.first_answer.CopyFrom(known[1])
            return Event(rejected=conflict)
        if known is not None:
            return Event(accepted=known[1])
        mismatch = self.mismatch(sender, send)
        if mismatch.missing or mismatch.extra or mismatch.stale:
            return Event(device_mismatch=mismatch)
        if send.first_tried_at.ToSeconds() < self.now() - 7 * 86400:
            return Event(rejected=rejection(send, "RETRY_TOO_OLD"))
        if send.after and (sender, send.after) not in conversation.accepted:
            return Event(rejected=rejection(send, "PREVIOUS_NOT_ACCEPTED", 0.02))
        accepted = self._write(conversation, sender, send)
        conversation.accepted[sender, send.client_message_id] = (content, accepted)
        return Event(accepted=accepted)

    def mismatch(self, sender: bytes, send: send_pb2.Send) -> send_pb2.DeviceMismatch:
        """What is wrong with the devices that a send names."""
        linked = {
            (user_id, number): registration
            for user_id in (send.user_id, sender)
            for number, registration in self.accounts[user_id].registrations.items()
            if (user_id, number) != (sender, 1)
        }
        bodies = send.per_device.bodies
        named = {(one.user_id, one.device_id): one.registration_id for one in bodies}
        mismatch = send_pb2.DeviceMismatch(client_message_id=send.client_message_id)
        for field_, names in (
            (mismatch.missing, linked.keys() - named.keys()),
            (mismatch.extra, named.keys() - linked.keys()),
            (mismatch.stale, {n for n in named.keys() & linked.keys() if named[n] != linked[n]}),
        ):
            for user_id, device_id in names:
                field_.add(user_id=user_id, device_id=device_id)
        return mismatch

    def _write(
        self, conversation: FakeConversation, sender: bytes, send: send_pb2.Send
    ) -> send_pb2.Accepted:
        conversation.last_seq += 1
        conversation.senders[conversation.last_seq] = sender
        accepted = send_pb2.Accepted(
            client_message_id=send.client_message_id,
            message_id=os.urandom(16),
            seq=conversation.last_seq,
            accepted_at=self.timestamp(),
        )
        self.deliver(
            self.accounts[send.user_id],
            peer=sender,
            sender=sender,
            seq=accepted.seq,
            message_id=accepted.message_id,
            accepted_at=accepted.accepted_at,
            body=next(
                one
                for one in send.per_device.bodies
                if (one.user_id, one.device_id) == (send.user_id, 1)
            ),
        )
        return accepted

    def number_of(self, send: send_pb2.Send) -> int:
        """The how-manieth message it is."""
        return self.firsts[send.client_message_id]

    def deliver(
        self,
        account: FakeAccount,
        *,
        peer: bytes,
        sender: bytes,
        seq: int,
        message_id: bytes,
        body: send_pb2.DeviceBody,
        accepted_at: Timestamp | None = None,
    ) -> None:
        account.head_pos += 1
        account.queue.append(
            envelope_pb2.Envelope(
                pos=account.head_pos,
                message_id=message_id,
                user_id=peer,
                seq=seq,
                sender_user_id=sender,
                sender_device_id=1,
                accepted_at=accepted_at or self.timestamp(),
                type=body.type,
                ciphertext=self.tamper(body.ciphertext),
            )
        )
        if account.session is not None:
            account.session.wake.set()

    def ack(self, account: FakeAccount, up_to_pos: int) -> None:
        self.acks.append((account.user_id, up_to_pos))
        while account.queue and account.queue[0].pos <= up_to_pos:
            envelope = account.queue.pop(0)
            account.acked_pos = envelope.pos
            if envelope.sender_user_id in self.accounts:
                self._receipt(envelope.sender_user_id, account.user_id, delivered=envelope.seq)

    def read(self, account: FakeAccount, read: receipt_pb2.Read) -> None:
        self.reads.append((account.user_id, read))
        self._receipt(read.user_id, account.user_id, read_up_to=read.up_to_seq)

    def _receipt(
        self, sender: bytes, peer: bytes, *, delivered: int = 0, read_up_to: int = 0
    ) -> None:
        account = self.accounts[sender]
        old = account.receipts.get(peer, receipt_pb2.Receipt())
        ranges = SeqRanges((one.first, one.last) for one in old.delivered)
        if delivered:
            ranges.add(delivered)
        account.receipt_version += 1
        account.receipts[peer] = receipt_pb2.Receipt(
            version=account.receipt_version,
            user_id=peer,
            delivered=[receipt_pb2.SeqRange(first=a, last=b) for a, b in ranges],
            read_up_to=max(old.read_up_to, read_up_to),
        )
        if account.session is not None:
            account.session.wake.set()


class FakeSession:
    """One open stream of a device."""

    def __init__(self, mesh: FakeMesh, account: FakeAccount, hello: gateway_pb2.Hello) -> None:
        self.mesh = mesh
        self.account = account
        self.max_unacked = hello.max_unacked or mesh.limits.max_unacked
        self.wake = asyncio.Event()
        self.wake.set()
        self.answers: list[Event] = []
        self.last_pos = account.acked_pos
        self.last_receipt = hello.after_receipts
        self.head_at_open = account.head_pos
        self.has_caught_up = False
        self.half_closed = False
        self.ending: tuple[str, float | None] | None = None

    def end(self, reason: str, reconnect_after: float | None = None) -> None:
        self.ending = (reason, reconnect_after)
        self.wake.set()

    def take(self, events: Iterable[gateway_pb2.DeviceEvent]) -> None:
        for event in events:
            match event.WhichOneof("event"):
                case "send":
                    answer = self.mesh.accept(self.account.user_id, event.send)
                    if not self.mesh.swallow_answers:
                        self.answers.append(answer)
                case "ack":
                    if event.ack.up_to_pos > self.last_pos:
                        self.end("PROTOCOL_VIOLATION", 0.0)
                        return
                    self.mesh.ack(self.account, event.ack.up_to_pos)
                case "read":
                    self.mesh.read(self.account, event.read)
                    self.answers.append(Event(read_recorded=event.read))
                case _:
                    self.end("PROTOCOL_VIOLATION", 0.0)
                    return
        self.wake.set()

    def due(self) -> list[Event]:
        """All that can be written now."""
        answers, self.answers = self.answers, []
        events = answers
        room = self.max_unacked - (self.last_pos - self.account.acked_pos)
        for envelope in [e for e in self.account.queue if e.pos > self.last_pos][: max(0, room)]:
            events.append(Event(deliver=envelope))
            self.last_pos = envelope.pos
        for receipt in sorted(self.account.receipts.values(), key=lambda one: one.version):
            if receipt.version > self.last_receipt:
                events.append(Event(receipt=receipt))
                self.last_receipt = receipt.version
        if not self.has_caught_up and self.account.acked_pos >= self.head_at_open:
            self.has_caught_up = True
            events.append(Event(caught_up=gateway_pb2.CaughtUp(pos=self.head_at_open)))
        return events


class FakeGateway(
    gateway_pb2_grpc.GatewayServiceServicer,
    identity_pb2_grpc.IdentityServiceServicer,
    keys_pb2_grpc.KeyServiceServicer,
):
    """One listener of the fake mesh."""

    def __init__(self, mesh: FakeMesh) -> None:
        self.mesh = mesh
        self.address = ""
        self.server = grpc.aio.server()
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(self, self.server)
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(self, self.server)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(self, self.server)

    async def start(
        self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
    ) -> None:
        if credentials is None:
            port = self.server.add_insecure_port(address)
        else:
            port = self.server.add_secure_port(address, credentials)
        self.address = f"127.0.0.1:{port}"
        await self.server.start()

    async def kill(self) -> None:
        """Every connection is cut at once."""
        await self.server.stop(0)

    async def Connect(self, requests, context) -> None:
        account = await self._account(context)
        first = await anext(aiter(requests))
        hello = first.events[0].hello
        self.mesh.hellos.append(hello)
        account.epoch += 1
        if account.session is not None:
            account.session.end("STREAM_REPLACED", 0.0)
        session = account.session = FakeSession(self.mesh, account, hello)
        welcome = gateway_pb2.Welcome(
            epoch=account.epoch,
            head_pos=account.head_pos,
            server_time=self.mesh.timestamp(),
            limits=self.mesh.limits,
        )
        await context.write(gateway_pb2.ConnectResponse(events=[Event(welcome=welcome)]))
        session.take(first.events[1:])
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(requests, session))
                await self._write(context, session)
                reading.cancel()
        finally:
            if account.session is session:
                account.session = None
        if session.ending is not None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, session.ending[0])
        self.mesh.ends.append("HALF_CLOSED")

    async def _read(self, requests, session: FakeSession) -> None:
        async for request in requests:
            session.take(request.events)
        session.half_closed = True
        session.wake.set()

    async def _write(self, context, session: FakeSession) -> None:
        while session.ending is None:
            await session.wake.wait()
            session.wake.clear()
            for chunk in _chunks(session.due()):
                await context.write(gateway_pb2.ConnectResponse(events=chunk))
            if session.half_closed:
                return
        reason, seconds = session.ending
        self.mesh.ends.append(reason)
        go_away = gateway_pb2.GoAway(reason=reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"))
        if seconds is not None:
            go_away.reconnect_after.CopyFrom(Duration(nanos=int(seconds * 1e9)))
        await context.write(gateway_pb2.ConnectResponse(events=[Event(go_away=go_away)]))

    async def Register(self, request, context):
        keys = request.keys
        signed = b"whimbrel register v2\0" + request.handle.encode() + b"\0\0"
        signed += keys.identity_key
        signed += keys.signed_prekey.public_key + keys.last_resort_prekey.public_key
        await self._verify(context, request, request.device_public_key, signed)
        account = self.mesh.handles.get(request.handle)
        if account is not None and account.public_key != request.device_public_key:
            await abort(context, _error("HANDLE_TAKEN"))
        if account is None:
            account = FakeAccount(request.handle, os.urandom(16), request.device_public_key)
            self.mesh.handles[request.handle] = account
            self.mesh.accounts[account.user_id] = account
        account.devices[1] = FakeKeys(keys)
        return identity_pb2.RegisterResponse(
            user_id=account.user_id,
            device_id=1,
            access_token=account.user_id.hex(),
            expires_at=self.mesh.timestamp(self.mesh.token_seconds),
        )

    async def UploadKeys(self, request, context):
        account = await self._account(context)
        account.devices[1].one_time = list(request.one_time_prekeys)
        account.devices[1].one_time_kem = list(request.one_time_kem_prekeys)
        return keys_pb2.UploadKeysResponse()

    async def CountKeys(self, request, context):
        device = (await self._account(context)).devices[1]
        return keys_pb2.CountKeysResponse(
            one_time_prekeys=len(device.one_time), one_time_kem_prekeys=len(device.one_time_kem)
        )

    async def FetchKeys(self, request, context):
        await self._account(context)
        account = self.mesh.accounts.get(request.user_id)
        devices = account.devices if account is not None else {}
        numbers = [one for one in devices if request.device_id in {0, one}]
        if account is None or not numbers:
            await abort(context, _error("RECIPIENT_UNKNOWN"))
        account.fetches += 1
        return keys_pb2.FetchKeysResponse(
            identity_key=devices[numbers[0]].keys.identity_key,
            bundles=[devices[number].bundle(number) for number in numbers],
        )

    async def Refresh(self, request, context):
        account = self.mesh.accounts.get(request.user_id)
        if account is None:
            await abort(context, _error("DEVICE_UNKNOWN"))
        device = request.user_id + request.device_id.to_bytes(4, "big")
        signed = b"whimbrel refresh v1\0" + device + b"\0"
        await self._verify(context, request, account.public_key, signed)
        return identity_pb2.RefreshResponse(
            access_token=account.user_id.hex(),
            expires_at=self.mesh.timestamp(self.mesh.token_seconds),
        )

    async def LookUp(self, request, context):
        await self._account(context)
        account = self.mesh.handles.get(request.handle)
        if account is None:
            await abort(context, _error("HANDLE_UNKNOWN"))
        return identity_pb2.LookUpResponse(user_id=account.user_id)

    async def _account(self, context) -> FakeAccount:
        token = dict(context.invocation_metadata()).get("authorization", "")
        by_token = {f"Bearer {one.hex()}": account for one, account in self.mesh.accounts.items()}
        account = by_token.get(token)
        if account is None or self.mesh.refuse_tokens:
            await abort(context, _error("TOKEN_INVALID"))
        return account

    async def _verify(self, context, request, public_key: bytes, signed: bytes) -> None:
        at_ms = request.signed_at.ToMilliseconds()
        if abs(at_ms / 1000 - self.mesh.now()) > 60:
            error = _error("SIGNATURE_STALE")
            error.metadata["server_time"] = self.mesh.timestamp().ToJsonString()
            await abort(context, error)
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key)
            key.verify(request.signature, signed + at_ms.to_bytes(8, "big"))
        except InvalidSignature:
            await abort(context, _error("SIGNATURE_INVALID"))


def _error(reason: str) -> WhimbrelError:
    error = WhimbrelError(reason)
    error.reason = reason  # type: ignore[misc]
    error.code = min(statuses()[reason], key=lambda code: code.name)  # type: ignore[misc]
    return error


def _chunks(events: list[Event]) -> Iterable[list[Event]]:
    chunk: list[Event] = []
    size = 0
    for event in events:
        if chunk and size + event.ByteSize() + 8 > 250 * 1024:
            yield chunk
            chunk, size = [], 0
        chunk.append(event)
        size += event.ByteSize() + 8
    if chunk:
        yield chunk


@asynccontextmanager
async def running_gateway(
    mesh: FakeMesh,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[FakeGateway]:
    gateway = FakeGateway(mesh)
    await gateway.start(address, credentials)
    try:
        yield gateway
    finally:
        await gateway.kill()
