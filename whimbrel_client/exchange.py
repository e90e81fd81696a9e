"""Between the stream and the store: frames become changes that are kept, the queue becomes frames.

It knows neither addresses nor calls.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from whimbrel.error.v1 import reason_pb2
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import envelope_pb2, receipt_pb2, send_pb2
from whimbrel_client.acks import Acks, Reads
from whimbrel_client.applying import Accepted, Applied, Changes, Refused
from whimbrel_client.clock import ServerClock
from whimbrel_client.identity import timestamp
from whimbrel_client.model import Outcome, Receipt, SendState
from whimbrel_client.opening import Delivered
from whimbrel_client.ranges import SeqRanges
from whimbrel_client.sealing import Mismatched
from whimbrel_client.sessions import DeviceId
from whimbrel_client.store import Store
from whimbrel_client.sync import Outbox, Sending, SendLimits

log = logging.getLogger(__name__)

_FRAME_BYTES = 256 * 1024
# What a frame holds beside its events, generously.
_FRAME_SPARE = 4 * 1024

_DEFAULT_LIMITS = SendLimits()

# Sends that are encrypted in one transaction.
_MOST_SEALED = 256
_MOST_REPAIR_SECONDS = 60.0

# These say nothing about the recipient.
_SOON = frozenset(
    {
        reason_pb2.ERROR_REASON_PREVIOUS_NOT_ACCEPTED,
        reason_pb2.ERROR_REASON_TOO_MANY_OUTSTANDING,
    }
)

_PREFIX = len("ERROR_REASON_")


class BrokenStream(Exception):
    """The server broke the protocol: what it delivers cannot be acknowledged."""


class Exchange:
    """The device's side of the protocol, across its streams; one stream at a time."""

    def __init__(
        self,
        store: Store,
        clock: ServerClock,
        *,
        on_applied: Callable[[Applied, Changes], None],
        on_given_up: Callable[[int, Outcome], None],
        on_lacking: Callable[[set[bytes]], None] = lambda _: None,
        on_low_prekeys: Callable[[], None] = lambda: None,
        on_stream: Callable[[], None] = lambda: None,
        on_sign: Callable[[gateway_pb2.ServerEvent], None] = lambda _: None,
        signs: Callable[[], list[gateway_pb2.DeviceEvent]] = list,
        on_behind: Callable[[set[bytes]], None] = lambda _: None,
        on_channel: Callable[[gateway_pb2.ServerEvent], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._on_applied = on_applied
        self._on_given_up = on_given_up
        self._on_lacking = on_lacking
        self._on_low_prekeys = on_low_prekeys
        self._on_behind = on_behind
        self._on_stream = on_stream
        self._on_sign, self._signs = on_sign, signs
        self._on_channel = on_channel
        # Conversations that are groups.
        self._groups: set[bytes] = set()
        # Accounts to which no session is open; what is for them waits.
        self._lacking: set[bytes] = set()
        self._limits = _DEFAULT_LIMITS
        self._frame_bytes = _FRAME_BYTES
        self._acks = Acks()
        self.outbox = Outbox()
        self.reads = Reads()
        # Set when there may be something to write.
        self.work = asyncio.Event()
        self.is_caught_up = False
        # How often deliveries have come.
        self._heard = 0

    async def restore(self, *, with_reads: bool) -> None:
        """Go on where an earlier run of the program stopped."""
        self._groups |= (await self._store.groups.states()).keys()
        for conversation, up_to_id in await self._store.queues():
            self.outbox.queued(conversation, up_to_id)
        for conversation, up_to_seq in await self._store.unrecorded_reads() if with_reads else ():
            self.reads.want(conversation, up_to_seq)

    async def hello(self, client: str) -> gateway_pb2.ConnectRequest:
        """The first frame of a stream."""
        version = await self._store.receipt_version()
        hello = gateway_pb2.Hello(client=client, after_receipts=version)
        return gateway_pb2.ConnectRequest(events=[gateway_pb2.DeviceEvent(hello=hello)])

    def opened(self, welcome: gateway_pb2.Welcome) -> None:
        """A stream begins: learn its limits and its time."""
        limits = welcome.limits
        if welcome.HasField("server_time"):
            self._clock.learn(welcome.server_time.ToMilliseconds())
        self._limits = SendLimits(
            limits.max_outstanding_sends or _DEFAULT_LIMITS.sends,
            limits.max_outstanding_bytes or _DEFAULT_LIMITS.bytes,
        )
        self._frame_bytes = limits.max_frame_bytes or _FRAME_BYTES
        self._acks = Acks()
        self.is_caught_up = False
        self._on_stream()
        self.work.set()

    def ended(self) -> None:
        """The stream is over: what was not answered is repeated on the next."""
        self.outbox.stream_ended()
        self.reads.stream_ended()

    def try_again(self) -> None:
        """There may be sessions now, or news of groups, that were lacking: try all that waits."""
        self._lacking.clear()
        self.work.set()

    # From the mesh.

    async def receive(self, frames: Iterable[gateway_pb2.ConnectResponse]) -> None:
        """Keep all that the frames say, in one transaction. Raises BrokenStream."""
        changes = Changes()
        is_whole = all(self._note(event, changes) for frame in frames for event in frame.events)
        stored_pos = self._acks.received_pos
        self._heard += bool(changes.delivered)
        applied = await self._store.apply(changes)
        self._applied(changes, applied, stored_pos)
        if not is_whole:
            raise BrokenStream("the positions of the deliveries have a hole")

    def _note(self, event: gateway_pb2.ServerEvent, changes: Changes) -> bool:
        """Add what the event says to the changes; False: it breaks the protocol."""
        match event.WhichOneof("event"):
            case "deliver":
                if not self._acks.receive(event.deliver.pos):
                    return False
                changes.delivered.append(_delivered(event.deliver))
                self._groups |= {event.deliver.group_id} - {b""}
            case "accepted":
                changes.accepted.append(_accepted(event.accepted))
            case "rejected":
                self._reject(event.rejected, changes)
            case "device_mismatch":
                changes.mismatched.append(_mismatched(event.device_mismatch))
            case "group_changed":
                changes.group_changes.append(event.group_changed)
            case "receipt":
                changes.receipts.append(_receipt(event.receipt))
                changes.tallies.update(_tallies(event.receipt))
            case "read_recorded":
                self._recorded(event.read_recorded, changes)
            case _:
                self._note_hint(event)
        return True

    def _note_hint(self, event: gateway_pb2.ServerEvent) -> None:
        """Nothing to keep; `welcome` and `go_away` are the stream's, and what is newer nobody's."""
        match event.WhichOneof("event"):
            case "caught_up":
                self.is_caught_up = True
            case "group_news":
                self._on_behind({event.group_news.group_id})
            case "low_prekeys":
                self._on_low_prekeys()
            case "presence" | "writing" | "watch_refused":
                self._on_sign(event)
            case "channel_post" | "channel_heads":
                self._on_channel(event)

    def _reject(self, rejected: send_pb2.Rejected, changes: Changes) -> None:
        if rejected.HasField("retry_after"):
            retry_at = self._clock.monotonic() + rejected.retry_after.ToTimedelta().total_seconds()
            self.outbox.refuse_for_now(rejected.client_message_id, retry_at)
            if rejected.reason not in _SOON:
                changes.postponed.append(rejected.client_message_id)
            return
        if rejected.HasField("first_answer"):
            # An earlier try, sealed for other devices, had arrived.
            rejected.first_answer.client_message_id = rejected.client_message_id
            changes.accepted.append(_accepted(rejected.first_answer))
            return
        reason = reason_name(rejected.reason)
        # The mesh has forgotten whether it accepted an earlier try.
        is_unknown = rejected.reason == reason_pb2.ERROR_REASON_RETRY_TOO_OLD
        state = SendState.NOT_CONFIRMED if is_unknown else SendState.REFUSED
        changes.refused.append(Refused(rejected.client_message_id, state, reason))

    def _recorded(self, read: receipt_pb2.Read, changes: Changes) -> None:
        conversation = read.group_id or read.user_id
        up_to_seq = self.reads.recorded(conversation)
        if up_to_seq is not None:
            changes.recorded.append((conversation, up_to_seq))

    def _applied(self, changes: Changes, applied: Applied, stored_pos: int | None) -> None:
        for accepted in changes.accepted:
            self.outbox.settle(accepted.client_message_id)
        for refused in changes.refused:
            self.outbox.settle(refused.client_message_id)
        for mismatched in changes.mismatched:
            self._unseal(mismatched.client_message_id)
        for changed in changes.group_changes:
            self._unseal(changed.client_message_id)
        self.outbox.offer(applied.queued)
        self._lacking -= {delivered.sender for delivered in changes.delivered} | applied.ready
        if applied.behind:
            self._on_behind(applied.behind)
        if stored_pos is not None:
            self._acks.stored(stored_pos)
        for alarm in applied.alarms:
            log.error("two messages claim one place in a conversation: %s", alarm)
        self.work.set()
        self._on_applied(applied, changes)

    def _unseal(self, client_message_id: bytes) -> None:
        """Seal the send anew; at once the first time, later the later."""
        if client_message_id not in self.outbox:
            return
        repairs = self.outbox[client_message_id].repairs
        wait = min(_MOST_REPAIR_SECONDS, 0.25 * 2**repairs) if repairs else 0.0
        self.outbox.unseal(client_message_id, self._clock.monotonic() + wait)

    # To the mesh.

    async def frames(self) -> list[gateway_pb2.ConnectRequest]:
        """All that may be written now. What is in it counts as written."""
        events = self._acks_and_reads() + self._signs()
        wanted = self.outbox.wanting()
        if wanted:
            for one, sends in zip(wanted, await self._store.load(wanted), strict=True):
                self.outbox.load(one, sends)
        await self._seal()
        now_ms = self._clock.now_ms()
        turn = self.outbox.take(
            now=self._clock.monotonic(), server_now_ms=now_ms, limits=self._limits
        )
        if turn.given_up:
            await self._give_up(turn.given_up)
        await self._renew([one for one in turn.sends if one.sealed_at != self._heard])
        await self._mark_tried([s for s in turn.sends if s.first_tried_at is None], now_ms)
        events.extend(map(_send_event, turn.sends))
        return self._framed(events)

    async def _seal(self) -> None:
        """Encrypt what waits, a good deal at a time: acks must not wait for long."""
        unsealed = self.outbox.unsealed(_MOST_SEALED, lacking=self._lacking)
        if not unsealed:
            return
        sealed = await self._store.seal(unsealed)
        for sending in unsealed:
            send = sealed.sends.get(sending.local_id)
            if send is not None:
                self.outbox.seal(sending, send)
                sending.sealed_at = self._heard
        # What lacks an own device's session lacks it whoever it is for.
        blocked = {one.conversation for one in unsealed if one.local_id not in sealed.sends}
        self._lacking |= blocked | sealed.lacking
        self.outbox.offer(sealed.queued)
        if sealed.lacking:
            self._on_lacking(sealed.lacking)
        if sealed.behind:
            self._on_behind(sealed.behind)
        if sealed.queued or len(unsealed) == _MOST_SEALED:
            self.work.set()

    async def _renew(self, waited: Sequence[Sending]) -> None:
        """What was heard since these were sealed may have turned a ratchet."""
        if not waited:
            return
        heard, renewed = self._heard, await self._store.renew(waited)
        for sending in waited:
            sending.sealed_at = heard
            if sending.local_id in renewed:
                self.outbox.renew(sending, renewed[sending.local_id])

    def next_retry_in(self) -> float | None:
        """Seconds until a refused send is due; None if none is to come."""
        retry_at = self.outbox.next_retry_at()
        if retry_at is None:
            return None
        seconds = retry_at - self._clock.monotonic()
        return seconds if seconds > 0 else None

    def _acks_and_reads(self) -> list[gateway_pb2.DeviceEvent]:
        events = []
        pos = self._acks.take()
        if pos is not None:
            events.append(gateway_pb2.DeviceEvent(ack=gateway_pb2.Ack(up_to_pos=pos)))
        for conversation, up_to_seq in self.reads.take():
            read = receipt_pb2.Read(up_to_seq=up_to_seq)
            if conversation in self._groups:
                read.group_id = conversation
            else:
                read.user_id = conversation
            events.append(gateway_pb2.DeviceEvent(read=read))
        return events

    async def _mark_tried(self, fresh: Sequence[Sending], now_ms: int) -> None:
        """The time of the first try is on the disk before the first try is made."""
        if not fresh:
            return
        await self._store.mark_tried(fresh, now_ms)
        for sending in fresh:
            sending.first_tried_at = now_ms

    async def _give_up(self, sends: Sequence[Sending]) -> None:
        await self._store.give_up(sends)
        for sending in sends:
            self._on_given_up(sending.local_id, Outcome(SendState.NOT_CONFIRMED))

    def _framed(
        self, events: Sequence[gateway_pb2.DeviceEvent]
    ) -> list[gateway_pb2.ConnectRequest]:
        frames: list[gateway_pb2.ConnectRequest] = []
        room = 0
        for event in events:
            size = event.ByteSize() + 8
            if size > room:
                frames.append(gateway_pb2.ConnectRequest())
                room = self._frame_bytes - _FRAME_SPARE
            frames[-1].events.append(event)
            room -= size
        return frames


def reason_name(reason: reason_pb2.ErrorReason.ValueType) -> str:
    """The name of a reason without its prefix; a number if it is newer than this version."""
    try:
        return reason_pb2.ErrorReason.Name(reason)[_PREFIX:]
    except ValueError:
        return str(int(reason))


def _send_event(sending: Sending) -> gateway_pb2.DeviceEvent:
    event = gateway_pb2.DeviceEvent()
    send = event.send
    send.ParseFromString(sending.send)
    send.after = sending.after
    assert sending.first_tried_at is not None  # noqa: S101  # `frames` has seen to it
    send.first_tried_at.CopyFrom(timestamp(sending.first_tried_at))
    return event


def _mismatched(mismatch: send_pb2.DeviceMismatch) -> Mismatched:
    return Mismatched(
        mismatch.client_message_id,
        *(
            [DeviceId(one.user_id, one.device_id) for one in devices]
            for devices in (mismatch.missing, mismatch.extra, mismatch.stale)
        ),
    )


def _delivered(envelope: envelope_pb2.Envelope) -> Delivered:
    return Delivered(
        envelope.group_id or envelope.user_id,
        envelope.seq,
        envelope.message_id,
        envelope.sender_user_id,
        envelope.sender_device_id,
        envelope.accepted_at.ToMilliseconds(),
        envelope.type,
        envelope.ciphertext,
        bool(envelope.group_id),
    )


def _accepted(accepted: send_pb2.Accepted) -> Accepted:
    return Accepted(
        accepted.client_message_id,
        accepted.message_id,
        accepted.seq,
        accepted.accepted_at.ToMilliseconds(),
    )


def _tallies(receipt: receipt_pb2.Receipt) -> dict[tuple[bytes, int], tuple[int, int]]:
    return {(receipt.group_id, one.seq): (one.delivered_to, one.read_by) for one in receipt.tallies}


def _receipt(receipt: receipt_pb2.Receipt) -> Receipt:
    # A direct chat goes by its peer; of a group, which has tallies instead, the version counts.
    delivered = SeqRanges((one.first, one.last) for one in receipt.delivered)
    peer = receipt.group_id or receipt.user_id
    return Receipt(receipt.version, peer, peer, delivered, receipt.read_up_to)
