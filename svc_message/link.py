"""The way out to one gateway: answers and pushes, as few frames as there can be."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mesh.metrics import DROPPED_BODIES
from mesh.telemetry import Telemetry
from svc_message.channels.model import Post
from svc_message.channels.wire import fill_heads, fill_post
from svc_message.groups.requests import Run, RunPlace
from svc_message.requests import Copy
from svc_message.results import Place, ReceiptRow
from svc_message.routing import Device
from svc_message.to_gateway import fill_copy, fill_message, fill_receipt
from whimbrel.error.v1 import reason_pb2
from whimbrel.message.v1 import attach_pb2

Write = Callable[[attach_pb2.AttachResponse], Awaitable[Any]]

FRAME_BYTES = 1024 * 1024
EVENT_BYTES = 64  # about, beside what varies
# More than this unwritten, and pushes lose their bodies; far more, and the gateway is given up.
_SOFT_BYTES = 8 * 1024 * 1024
_HARD_BYTES = 64 * 1024 * 1024
_MOST_SHOWN = 8  # devices of a run whose deliveries are traced: a group may have thousands
_LARGE_POST = 16 * 1024  # is read by those who follow, not pushed to all gateways


class GatewayLink:
    """The way out to one gateway: everything that waits goes into the next frame."""

    def __init__(self, instance_id: str, telemetry: Telemetry) -> None:
        self._instance_id = instance_id
        self._frame = attach_pb2.AttachResponse()
        self._frame_bytes = 0
        self._run: tuple[Run, attach_pb2.PushRun] | None = None  # the latest in the frame
        self._full: deque[attach_pb2.AttachResponse] = deque()
        self._bytes = 0
        self._doorbells: dict[Device, list[int]] = {}
        self._posts: dict[bytes, int] = {}  # the heads of channels whose posts are not pushed
        self._telemetry = telemetry
        self._dropped = telemetry.counter(DROPPED_BODIES)
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._is_closing = False

    @property
    def instance_id(self) -> str:
        """The gateway's name."""
        return self._instance_id

    def event(self, request_id: int, size: int = EVENT_BYTES) -> attach_pb2.MessageEvent:
        """An event in the next frame, to be filled now, of about `size` bytes."""
        if self._frame_bytes + size > FRAME_BYTES and self._frame_bytes:
            self._full.append(self._frame)
            self._frame = attach_pb2.AttachResponse()
            self._frame_bytes = 0
            self._run = None
        self._frame_bytes += size
        self._bytes += size
        self._wake.set()
        event = self._frame.events.add()
        event.id = request_id
        return event

    def push_delivery(self, copy: Copy, place: Place) -> None:
        """Push a copy, or its doorbell when too much waits."""
        device = (copy.user_id, place.device_id)
        if self._bytes > _SOFT_BYTES:
            self._dropped.add(1)
            self._ring(device, place.pos, 0)
            return
        deliver = self.event(
            0, len(copy.body_for(place.device_id).ciphertext) + 2 * EVENT_BYTES
        ).deliver
        deliver.device.user_id, deliver.device.device_id = device
        fill_copy(deliver.envelope, copy, place)
        if copy.traces:
            deliver.trace = self._routed(copy.traces[0])

    def _routed(self, at: bytes) -> bytes:
        """Say in the message's trace that it goes to this gateway now."""
        span = self._telemetry.start("route", at)
        if span is None:
            return at
        span.set("gateway", self._instance_id)
        span.end()
        return span.trace

    def push_run(self, run: Run, place: RunPlace) -> None:
        """Push a group's messages, the bodies once a frame, or a doorbell when too much waits."""
        if self._bytes > _SOFT_BYTES:
            self._dropped.add(1)
            # Its session reads from there whatever there is.
            self._ring((place.user_id, place.device_id), place.first_pos, 0)
            return
        if self._run is None or self._run[0] is not run:
            size = sum(len(message.body) + 2 * EVENT_BYTES for message in run.messages)
            self._run = run, self._new_run(run, size)
        out = self._run[1].places.add()
        out.device.user_id, out.device.device_id = place.user_id, place.device_id
        out.first_seq, out.first_pos = place.first_seq, place.first_pos
        self._frame_bytes += EVENT_BYTES
        self._bytes += EVENT_BYTES
        if place.traces and run.shown < _MOST_SHOWN:
            run.shown += 1
            self._trace(out, run, place, place.traces)

    def _trace(
        self, out: attach_pb2.RunPlace, run: Run, place: RunPlace, traces: Mapping[int, bytes]
    ) -> None:
        """Say in the traces of a run's messages that they go to this device."""
        pos, device = place.first_pos, (place.user_id, place.device_id)
        for message in run.messages:
            sender = message.sender_id, message.sender_device_id
            if message.seq >= place.first_seq and sender != device:
                if message.seq in traces:
                    out.traces.add(pos=pos, trace=self._routed(traces[message.seq]))
                pos += 1

    def push_receipt(self, device: Device, row: ReceiptRow) -> None:
        """Push a receipt, or its doorbell when too much waits."""
        if self._bytes > _SOFT_BYTES:
            self._ring(device, 0, row.version)
            return
        push = self.event(0).receipt
        push.device.user_id, push.device.device_id = device
        fill_receipt(push.receipt, row)
        if row.traces:
            push.traces.extend(map(self._routed, row.traces))

    def push_doorbell(self, device: Device, head_pos: int, receipt_version: int) -> None:
        """Say how far a device should be; its session reads what it misses."""
        self._ring(device, head_pos, receipt_version)

    def push_end(self, device: Device, below_epoch: int) -> None:
        """End a session that a newer one has replaced."""
        end = self.event(0).end
        end.device.user_id, end.device.device_id = device
        end.below_epoch = below_epoch
        end.reason = reason_pb2.ERROR_REASON_STREAM_REPLACED

    def push_revoked(self, device: Device, below_epoch: int) -> None:
        """End the sessions of a device that was unlinked."""
        end = self.event(0).end
        end.device.user_id, end.device.device_id = device
        end.below_epoch = below_epoch
        end.reason = reason_pb2.ERROR_REASON_DEVICE_REVOKED

    def push_low_prekeys(self, device: Device, ec_left: int, kem_left: int) -> None:
        """Say that one-time keys run out; the device counts them at its next start in any case."""
        low = self.event(0).low_prekeys
        low.device.user_id, low.device.device_id = device
        low.one_time_prekeys, low.one_time_kem_prekeys = ec_left, kem_left

    def push_group_news(self, devices: Sequence[Device], group_id: bytes, revision: int) -> None:
        """Say that a group has changed; it is not said when too much waits."""
        if self._bytes > _SOFT_BYTES:
            return
        push = self.event(0, EVENT_BYTES * (1 + len(devices))).group_news
        for user_id, device_id in devices:
            push.devices.add(user_id=user_id, device_id=device_id)
        push.news.group_id, push.news.revision = group_id, revision

    def push_post(self, post: Post) -> None:
        """Push a channel's post, or only how far the channel is."""
        if len(post.ciphertext) > _LARGE_POST or self._bytes > _SOFT_BYTES:
            self._posts[post.channel_id] = max(post.seq, self._posts.get(post.channel_id, 0))
            self._wake.set()
        else:
            event = self.event(0, len(post.ciphertext) + 2 * EVENT_BYTES)
            fill_post(event.channel_post, post)
            if post.trace:
                event.trace = self._routed(post.trace)

    def push_subscription(
        self, devices: Sequence[Device], channel_id: bytes, *, is_there: bool
    ) -> None:
        """Say that an account has subscribed, or does so no more; not said when too much waits."""
        if self._bytes > _SOFT_BYTES:
            return
        push = self.event(0, EVENT_BYTES * (1 + len(devices))).subscription
        for user_id, device_id in devices:
            push.devices.add(user_id=user_id, device_id=device_id)
        push.channel_id, push.subscribed = channel_id, is_there

    async def written(self) -> None:
        """Return when nothing waits to be written."""
        is_written = asyncio.get_running_loop().create_future()
        self._waiters.append(is_written)
        self._wake.set()
        await is_written

    def close(self) -> None:
        """Nothing more comes: the writer ends when all is written."""
        self._is_closing = True
        self._wake.set()

    async def write_to(self, write: Write) -> None:
        """Write until closed."""
        while True:
            await self._wake.wait()
            frame = self._take()
            if frame is not None:
                await write(frame)
            elif self._is_closing:
                return
            else:
                self._wake.clear()
                self._tell_written()

    def _new_run(self, run: Run, size: int) -> attach_pb2.PushRun:
        pushed = self.event(0, size).run
        for message in run.messages:
            fill_message(pushed.envelopes.add(), message)
        return pushed

    def _take(self) -> attach_pb2.AttachResponse | None:
        if self._full:
            frame = self._full.popleft()
        elif self._frame_bytes:
            frame, self._frame, self._frame_bytes = self._frame, attach_pb2.AttachResponse(), 0
            self._run = None
        elif self._doorbells or self._posts:
            frame = self._ringing()
        else:
            self._bytes = 0
            return None
        if not self._full and not self._frame_bytes:
            self._bytes = 0
        return frame

    def _tell_written(self) -> None:
        for is_written in self._waiters:
            if not is_written.done():  # nobody waits any more
                is_written.set_result(None)
        self._waiters.clear()

    def _ring(self, device: Device, head_pos: int, receipt_version: int) -> None:
        bell = self._doorbells.setdefault(device, [0, 0])
        bell[0] = max(bell[0], head_pos)
        bell[1] = max(bell[1], receipt_version)
        self._wake.set()

    def _ringing(self) -> attach_pb2.AttachResponse:
        frame = attach_pb2.AttachResponse()
        for (user_id, device_id), (head_pos, version) in self._doorbells.items():
            bell = frame.events.add().doorbell
            bell.device.user_id, bell.device.device_id = user_id, device_id
            bell.head_pos, bell.receipt_version = head_pos, version
        self._doorbells.clear()
        if self._posts:
            fill_heads(frame.events.add().channel_heads, self._posts)
            self._posts.clear()
        return frame

    @property
    def is_overrun(self) -> bool:
        """Whether the gateway has stopped reading."""
        return self._bytes > _HARD_BYTES
