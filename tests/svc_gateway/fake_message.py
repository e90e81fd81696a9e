"""A message service in memory, which keeps the rules of the real one and breaks them on demand."""

import asyncio
import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc

from mesh.ids import new_ulid
from mesh.instances import Instance
from mesh.server import INTERNAL_LISTENER, bind, new_server
from whimbrel.error.v1 import reason_pb2
from whimbrel.identity.v1.identity_pb2_grpc import (
    IdentityServiceServicer,
    add_IdentityServiceServicer_to_server,
)
from whimbrel.message.v1 import (
    attach_pb2,
    envelope_pb2,
    message_pb2_grpc,
    receipt_pb2,
    send_pb2,
)

Address = tuple[bytes, int]


def address_of(device: attach_pb2.DeviceAddress) -> Address:
    return device.user_id, device.device_id


@dataclass
class DeviceRow:
    """One device: its queue and its session."""

    rows: list[envelope_pb2.Envelope] = field(default_factory=list)  # the unacked tail
    head_pos: int = 0
    acked_pos: int = 0
    epoch: int = 0
    linked: bool = True

    def append(self, envelope: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        self.head_pos += 1
        envelope.pos = self.head_pos
        self.rows.append(envelope)
        return envelope

    def ack(self, up_to_pos: int) -> None:
        self.acked_pos = max(self.acked_pos, up_to_pos)
        self.rows = [row for row in self.rows if row.pos > self.acked_pos]


class Store:
    """What all instances of the fake share, as the real ones share Postgres."""

    def __init__(self) -> None:
        self.devices: dict[Address, DeviceRow] = defaultdict(DeviceRow)
        self.receipts: dict[bytes, list[receipt_pb2.Receipt]] = defaultdict(list)
        self.seqs: dict[bytes, int] = defaultdict(int)
        self.accepted: dict[tuple[bytes, bytes], send_pb2.Accepted] = {}
        self.sends: list[send_pb2.Send] = []
        self.order: list[bytes] = []  # client message ids, as they were first accepted
        self.reads: dict[tuple[bytes, bytes], int] = {}
        self.subscriptions: dict[bytes, set[bytes]] = defaultdict(set)  # of accounts, by channel
        self.channel_heads: dict[bytes, int] = defaultdict(int)
        self.gateways: dict[Address, Link] = {}
        self.links: set[Link] = set()

    def version_of(self, user_id: bytes) -> int:
        receipts = self.receipts[user_id]
        return receipts[-1].version if receipts else 0

    def add_receipt(self, user_id: bytes, peer_id: bytes, last: int) -> receipt_pb2.Receipt:
        receipts = self.receipts[user_id]
        receipt = receipt_pb2.Receipt(version=self.version_of(user_id) + 1, user_id=peer_id)
        receipt.delivered.add(first=1, last=last)
        receipts[:] = [old for old in receipts if old.user_id != peer_id] + [receipt]
        return receipt

    def put(self, address: Address, ciphertext: bytes = b"x", sender: bytes = b"s" * 16) -> None:
        """A message arrives, without a push."""
        self.devices[address].append(
            envelope_pb2.Envelope(
                message_id=new_ulid(),
                user_id=sender,
                seq=self.devices[address].head_pos + 1,
                sender_user_id=sender,
                sender_device_id=1,
                type=send_pb2.CIPHERTEXT_TYPE_PLAIN,
                ciphertext=ciphertext,
            )
        )


class Link:
    """One gateway's stream at one instance."""

    def __init__(self, instance: "FakeMessage", instance_id: str) -> None:
        self.instance = instance
        self.instance_id = instance_id
        self.waiting: list[attach_pb2.MessageEvent] = []
        self.wake = asyncio.Event()

    def say(self, event: attach_pb2.MessageEvent) -> None:
        self.waiting.append(event)
        self.wake.set()

    async def write(self, context: Any) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            await self.instance.may_write.wait()
            events, self.waiting = self.waiting, []
            if events:
                await context.write(attach_pb2.AttachResponse(events=events))


class FakeMessage(message_pb2_grpc.MessageServiceServicer):
    """One instance. `silent_for` leaves requests unanswered; `drop_push` loses pushes."""

    def __init__(self, store: Store, instance_id: str) -> None:
        self.store = store
        self.instance_id = instance_id
        self.requests: list[attach_pb2.GatewayEvent] = []
        self.not_here: list[Address] = []
        self.drop_push: Callable[[attach_pb2.MessageEvent], bool] = lambda event: False
        self.refuse: Callable[[attach_pb2.GatewayEvent], attach_pb2.Refused | None]
        self.refuse = lambda event: None
        self.silent_for: set[str] = set()  # kinds of requests that are not answered
        self.before_heads: Callable[[Address], None] | None = None  # happens once, just before
        self.reject: send_pb2.Rejected | None = None
        self.metadata: list[tuple[str, str]] = []
        self.arrived = asyncio.Condition()
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def Attach(self, requests: Any, context: Any) -> None:
        self.metadata = list(context.invocation_metadata())
        first = await context.read()
        link = Link(self, first.events[0].hello.instance_id)
        self.store.links.add(link)
        writing = asyncio.create_task(link.write(context))
        try:
            await self._serve(link, first.events[1:])
            while (frame := await context.read()) is not grpc.aio.EOF:
                await self._serve(link, frame.events)
        finally:
            self.store.links.discard(link)
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing

    async def until(self, condition: Callable[[], bool], within: float = 20) -> None:
        """Return when the condition holds; it is looked at after each frame."""
        async with asyncio.timeout(within), self.arrived:
            await self.arrived.wait_for(condition)

    def refuse_once(self, kind: str, reason: str) -> None:
        """Refuse the next request of a kind, for a tenth of a second."""

        def refuse(event: attach_pb2.GatewayEvent) -> attach_pb2.Refused | None:
            if event.WhichOneof("event") != kind:
                return None
            self.refuse = lambda _event: None
            return retriable(reason, 0.1)

        self.refuse = refuse

    def asked(self, kind: str) -> list[attach_pb2.GatewayEvent]:
        return [event for event in self.requests if event.WhichOneof("event") == kind]

    def push(self, address: Address, event: attach_pb2.MessageEvent) -> None:
        link = self.store.gateways.get(address)
        if link is not None and not self.drop_push(event):
            link.say(event)

    def push_envelope(self, address: Address, envelope: envelope_pb2.Envelope) -> None:
        event = attach_pb2.MessageEvent()
        event.deliver.device.user_id, event.deliver.device.device_id = address
        event.deliver.envelope.CopyFrom(envelope)
        self.push(address, event)

    def push_receipt(self, address: Address, receipt: receipt_pb2.Receipt) -> None:
        event = attach_pb2.MessageEvent()
        event.receipt.device.user_id, event.receipt.device.device_id = address
        event.receipt.receipt.CopyFrom(receipt)
        self.push(address, event)

    def push_end(self, address: Address, below_epoch: int, reason: str) -> None:
        event = attach_pb2.MessageEvent()
        event.end.device.user_id, event.end.device.device_id = address
        event.end.below_epoch = below_epoch
        event.end.reason = reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
        for link in self.store.links:
            if not self.drop_push(event):
                link.say(event)

    async def _serve(self, link: Link, events: Any) -> None:
        for event in events:
            self.requests.append(event)
            kind = event.WhichOneof("event")
            if kind in self.silent_for:
                continue
            refused = self.refuse(event)
            if refused is not None:
                link.say(attach_pb2.MessageEvent(id=event.id, refused=refused))
                continue
            answer = getattr(self, f"_{kind}")(link, getattr(event, kind))
            if answer is not None:
                answer.id = event.id
                link.say(answer)
        async with self.arrived:
            self.arrived.notify_all()

    def _open(self, link: Link, request: attach_pb2.OpenSession) -> attach_pb2.MessageEvent:
        address = address_of(request.device)
        row = self.store.devices[address]
        row.epoch += 1
        self.store.gateways[address] = link
        answer = attach_pb2.MessageEvent()
        answer.opened.epoch, answer.opened.head_pos = row.epoch, row.head_pos
        answer.opened.acked_pos = row.acked_pos
        answer.opened.receipt_version = self.store.version_of(address[0])
        answer.opened.server_time.GetCurrentTime()
        return answer

    def _send(self, link: Link, request: attach_pb2.DeviceSend) -> attach_pb2.MessageEvent:
        send, store = request.send, self.store
        if self.reject is not None:
            answer = attach_pb2.MessageEvent(rejected=self.reject)
            answer.rejected.client_message_id = send.client_message_id
            return answer
        store.sends.append(send)
        key = (request.conversation_id, send.client_message_id)
        if key not in store.accepted:
            store.order.append(send.client_message_id)
            store.seqs[request.conversation_id] += 1
            accepted = send_pb2.Accepted(
                client_message_id=send.client_message_id,
                message_id=hashlib.sha256(b"".join(key)).digest()[:16],
                seq=store.seqs[request.conversation_id],
            )
            accepted.accepted_at.GetCurrentTime()
            store.accepted[key] = accepted
            self._copy(request, accepted)
        return attach_pb2.MessageEvent(accepted=store.accepted[key])

    def _copy(self, request: attach_pb2.DeviceSend, accepted: send_pb2.Accepted) -> None:
        address = (request.send.user_id, 1)
        envelope = self.store.devices[address].append(
            envelope_pb2.Envelope(
                message_id=accepted.message_id,
                user_id=request.device.user_id,
                seq=accepted.seq,
                sender_user_id=request.device.user_id,
                sender_device_id=request.device.device_id,
                accepted_at=accepted.accepted_at,
                type=request.send.shared.type,
                ciphertext=request.send.shared.ciphertext,
            )
        )
        self.push_envelope(address, envelope)

    def _ack(self, link: Link, request: attach_pb2.DeviceAck) -> attach_pb2.MessageEvent:
        address = address_of(request.device)
        row = self.store.devices[address]
        if request.up_to_pos > row.head_pos:
            reason = reason_pb2.ERROR_REASON_ACK_ABOVE_HEAD
            return attach_pb2.MessageEvent(refused=attach_pb2.Refused(reason=reason))
        acked = [e for e in row.rows if e.pos <= request.up_to_pos]
        row.ack(request.up_to_pos)
        latest = {e.sender_user_id: e.seq for e in acked}
        for sender, seq in latest.items():
            receipt = self.store.add_receipt(sender, address[0], seq)
            self.push_receipt((sender, 1), receipt)
        answer = attach_pb2.MessageEvent()
        answer.acked.acked_pos = row.acked_pos
        return answer

    def _read(self, link: Link, request: attach_pb2.DeviceRead) -> attach_pb2.MessageEvent:
        key = (request.device.user_id, request.conversation_id)
        self.store.reads[key] = max(self.store.reads.get(key, 0), request.read.up_to_seq)
        return attach_pb2.MessageEvent(read_recorded=attach_pb2.ReadRecorded())

    def _fetch_page(self, link: Link, request: attach_pb2.FetchPage) -> attach_pb2.MessageEvent:
        row = self.store.devices[address_of(request.device)]
        answer = attach_pb2.MessageEvent()
        page = answer.page
        page.head_pos, page.acked_pos = row.head_pos, row.acked_pos
        size = 0
        for envelope in row.rows:
            if envelope.pos <= request.after_pos:
                continue
            if len(page.envelopes) == request.max_envelopes or size >= request.max_bytes:
                page.cut = True
                break
            size += len(envelope.ciphertext)
            page.envelopes.append(envelope)
        return answer

    def _fetch_heads(self, link: Link, request: attach_pb2.FetchHeads) -> attach_pb2.MessageEvent:
        answer = attach_pb2.MessageEvent()
        answer.heads.SetInParent()
        for device in request.devices:
            if self.before_heads is not None:
                self.before_heads(address_of(device))
                self.before_heads = None
            row = self.store.devices[address_of(device)]
            answer.heads.heads.add(
                device=device,
                head_pos=row.head_pos,
                acked_pos=row.acked_pos,
                epoch=row.epoch,
                receipt_version=self.store.version_of(device.user_id),
                linked=row.linked,
            )
        return answer

    def _fetch_receipts(
        self, link: Link, request: attach_pb2.FetchReceipts
    ) -> attach_pb2.MessageEvent:
        rows = [
            r for r in self.store.receipts[request.user_id] if r.version > request.after_version
        ]
        answer = attach_pb2.MessageEvent()
        answer.receipts.receipts.extend(rows[: request.max_receipts])
        answer.receipts.receipt_version = self.store.version_of(request.user_id)
        return answer

    def _fetch_subscriptions(
        self, link: Link, request: attach_pb2.FetchSubscriptions
    ) -> attach_pb2.MessageEvent:
        answer = attach_pb2.MessageEvent()
        answer.subscriptions.SetInParent()
        for user_id in request.user_ids:
            channel_ids = self.store.subscriptions[user_id]
            answer.subscriptions.lists.add(user_id=user_id, channel_ids=channel_ids)
        return answer

    def _fetch_channel_heads(
        self, link: Link, request: attach_pb2.FetchChannelHeads
    ) -> attach_pb2.MessageEvent:
        answer = attach_pb2.MessageEvent()
        answer.channel_heads.SetInParent()
        for channel_id in request.channel_ids:
            head_seq = self.store.channel_heads[channel_id]
            answer.channel_heads.heads.add(channel_id=channel_id, head_seq=head_seq)
        return answer

    def _not_here(self, link: Link, request: attach_pb2.NotHere) -> None:
        self.not_here.append(address_of(request.device))


class RunningMessage:
    """A fake instance with its server, to start, break and stop."""

    def __init__(
        self, store: Store, instance_id: str, identity: IdentityServiceServicer | None = None
    ) -> None:
        self.service = FakeMessage(store, instance_id)
        self._identity = identity
        self.instance_id = instance_id
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def start(self) -> Instance:
        self._server = new_server(INTERNAL_LISTENER)
        message_pb2_grpc.add_MessageServiceServicer_to_server(self.service, self._server)
        if self._identity is not None:
            add_IdentityServiceServicer_to_server(self._identity, self._server)
        self.address = bind(self._server, self.address or "127.0.0.1:0")
        await self._server.start()
        return self.instance

    @property
    def instance(self) -> Instance:
        return Instance(self.instance_id, "message", self.address)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None


async def until(condition: Callable[[], object], within: float = 20) -> None:
    """Return when the condition holds; for what tells nobody when it changes."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def retriable(reason: str, seconds: float = 1) -> attach_pb2.Refused:
    refused = attach_pb2.Refused(reason=reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"))
    refused.retry_after.FromTimedelta(timedelta(seconds=seconds))
    return refused
