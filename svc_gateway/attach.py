"""The Attach streams to the message service: requests kept until answered, pushes passed on.

One stream to every instance that discovery knows. A request goes to the instance that rendezvous
picks for its slot; when that one's stream breaks, or it is silent for too long (a stopped instance
is not dead), it goes to the next. Repeating a request is harmless, and the first answer counts.
"""

import asyncio
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import grpc
import structlog

from mesh.backoff import Backoff
from mesh.channels import Channels
from mesh.clock import Clock, SystemClock
from mesh.errors import Unavailable, root_cause
from mesh.instances import Instance
from mesh.rendezvous import Rendezvous
from mesh.tasks import supervised
from svc_gateway import to_service
from svc_gateway.outbox import Outbox
from svc_gateway.tally import Tally
from svc_gateway.window import KIB
from whimbrel.message.v1 import attach_pb2

log = structlog.get_logger(__name__)

_METHOD = "/whimbrel.message.v1.MessageService/Attach"
_FRAME_BYTES = 1024 * KIB
# A stream that has not written so much takes no more "not here": those are lost without harm.
_MOST_UNWRITTEN = 4096 * KIB
_READY_WITHIN = 5.0
# Heard of for the last time before this share of the wait for an answer, an instance is silent.
_SILENT = 0.8

Call = Any  # grpc.aio.StreamStreamCall[bytes, AttachResponse]: the type stubs differ by version


class Requester(Protocol):
    """Whoever asks."""

    @property
    def is_over(self) -> bool:
        """Nobody waits for the answer: the request need not be asked again."""

    def answered(self, request: "Request", answer: attach_pb2.MessageEvent) -> None:
        """Take the answer. It comes once, and does not wait."""


@dataclass(slots=True, eq=False)
class Request:
    """Something asked of the message service, encoded as a frame of one event."""

    id: int
    slot: int
    frame: bytes
    requester: Requester
    asked_at: float = 0.0  # the last time
    since: float = 0.0  # the first time


class Pushes(Protocol):
    """Whoever takes what the message service says unasked."""

    def push(self, event: attach_pb2.MessageEvent, attachment: "Attachment") -> None: ...
    def attachment_broke(self) -> None:
        """Pushes may have been lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachLimits:
    """How long to wait for an answer, and how much may wait."""

    answer_within: timedelta = timedelta(seconds=4.5)
    most_unanswered_bytes: int = 64 * 1024 * KIB


class Attachment:
    """One stream to one instance: what waits to be written, and what for an answer."""

    def __init__(self, instance_id: str, clock: Clock) -> None:
        self.instance_id = instance_id
        self.unanswered: dict[int, Request] = {}
        self.is_open = False
        self.is_stalled = False
        self.heard_at = 0.0
        self.outbox = Outbox()
        self._clock = clock

    def put(self, request: Request) -> None:
        request.asked_at = self._clock.monotonic()
        request.since = request.since or request.asked_at
        self.unanswered[request.id] = request
        self.outbox.put(request.frame)

    def not_here(self, address: to_service.Address) -> None:
        """A push came for a session that is not with this gateway."""
        if self.outbox.size <= _MOST_UNWRITTEN:
            self.outbox.put(to_service.not_here(address))

    def give_up(self) -> list[Request]:
        """All unanswered requests, oldest first: somebody else will answer them."""
        requests = [*self.unanswered.values()]
        self.unanswered = {}
        self.outbox.clear()
        return requests

    def overdue(self, asked_before: float) -> list[Request]:
        """The requests that were asked before a moment."""
        late = itertools.takewhile(lambda r: r.asked_at < asked_before, self.unanswered.values())
        return [*late]


class Attach:
    """All Attach streams of this gateway."""

    def __init__(
        self,
        channels: Channels,
        *,
        instance_id: str,
        pushes: Pushes,
        tally: Tally,
        limits: AttachLimits = AttachLimits(),
        clock: Clock | None = None,
    ) -> None:
        self._channels = channels
        self._instance_id = instance_id
        self._pushes = pushes
        self._tally = tally
        self._limits = limits
        self._clock = clock or SystemClock()
        self._attachments: dict[str, Attachment] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._route = Rendezvous(())
        self.attached = asyncio.Event()  # to any instance, once
        self._homeless: list[Request] = []
        self._ids = itertools.count(1)
        self._unanswered_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether more sends may be kept. Other requests are few, and bounded by the sessions."""
        return self._unanswered_bytes < self._limits.most_unanswered_bytes

    @property
    def open_instances(self) -> tuple[str, ...]:
        """Whose streams are open."""
        return tuple(a.instance_id for a in self._attachments.values() if a.is_open)

    def new_id(self) -> int:
        """An id for the next request."""
        return next(self._ids)

    def ask(self, request: Request) -> None:
        """Keep the request until it is answered."""
        self._unanswered_bytes += len(request.frame)
        self._place(request)

    def pick(self, slot: int) -> str | None:
        """The instance that serves a slot now."""
        return self._route.pick(slot)

    def ranked(self, key: int | bytes) -> list[str]:
        """The instances that answer, the key's own first."""
        return self._route.ranked(key)

    def channel(self, instance_id: str) -> grpc.aio.Channel:
        """The channel to an instance, for calls beside the stream; raises Unavailable."""
        return self._channels.channel(instance_id)

    def instances_changed(self, instances: Mapping[str, Instance]) -> None:
        """Discovery has a new view."""
        self._channels.update(instances)
        self._changed.set()

    async def run(self) -> None:
        """Keep a stream to every instance; ends by cancellation only."""
        async with asyncio.TaskGroup() as tasks:
            checking = supervised(self._check_answers, name="attach-answers", clock=self._clock)
            tasks.create_task(checking, name="attach-answers")
            while True:
                self._changed.clear()
                self._follow(tasks)
                await self._changed.wait()

    def _follow(self, tasks: asyncio.TaskGroup) -> None:
        known = self._channels.instances
        for instance_id in self._tasks.keys() - known.keys():
            self._tasks.pop(instance_id).cancel()
        for instance_id in known.keys() - self._tasks.keys():
            attachment, name = Attachment(instance_id, self._clock), f"attach-{instance_id}"
            # A bug that one answer or push hits must not end the others' streams.
            attending = supervised(functools.partial(self._attend, attachment), name=name)
            self._tasks[instance_id] = tasks.create_task(attending, name=name)

    async def _attend(self, attachment: Attachment) -> None:
        backoff = Backoff(most=timedelta(seconds=2))
        while True:
            try:
                await self._connect(attachment)
                await self._converse(attachment, backoff)
            except* (grpc.RpcError, asyncio.InvalidStateError, Unavailable, TimeoutError) as broken:
                cause = repr(root_cause(broken))
                log.info("attach stream broke", to=attachment.instance_id, cause=cause)
            await self._clock.sleep(backoff.next())

    async def _connect(self, attachment: Attachment) -> None:
        channel = self._channels.channel(attachment.instance_id)
        async with asyncio.timeout(_READY_WITHIN):
            await channel.channel_ready()

    async def _converse(self, attachment: Attachment, backoff: Backoff) -> None:
        channel = self._channels.channel(attachment.instance_id)
        open_stream: Any = channel.stream_stream(
            _METHOD, response_deserializer=attach_pb2.AttachResponse.FromString
        )
        call: Call = open_stream()
        self._opened(attachment)
        try:
            async with asyncio.TaskGroup() as tasks:
                name = f"attach-writer-{attachment.instance_id}"
                writing = tasks.create_task(self._write(attachment, call), name=name)
                await self._read(attachment, call, backoff)
                writing.cancel()
        finally:
            call.cancel()
            self._closed(attachment)

    async def _write(self, attachment: Attachment, call: Call) -> None:
        await call.write(to_service.hello(self._instance_id))
        outbox = attachment.outbox
        while True:
            await outbox.wait()
            if outbox.size:
                # Whoever can run now adds its own: one turn of the loop for a fuller frame.
                await asyncio.sleep(0)
                await call.write(outbox.take(_FRAME_BYTES))

    async def _read(self, attachment: Attachment, call: Call, backoff: Backoff) -> None:
        while (frame := await call.read()) is not grpc.aio.EOF:
            backoff.reset()
            attachment.heard_at = self._clock.monotonic()
            if attachment.is_stalled:
                attachment.is_stalled = False
                self._reroute()
            for event in frame.events:
                self._take(attachment, event)
        await call.code()

    def _take(self, attachment: Attachment, event: attach_pb2.MessageEvent) -> None:
        if not event.id:
            self._pushes.push(event, attachment)
            return
        request = attachment.unanswered.pop(event.id, None)
        if request is not None:  # else: it was asked elsewhere meanwhile
            self._unanswered_bytes -= len(request.frame)
            request.requester.answered(request, event)

    def _opened(self, attachment: Attachment) -> None:
        log.info("attached", to=attachment.instance_id)
        attachment.is_open, attachment.is_stalled = True, False
        self.attached.set()
        self._attachments[attachment.instance_id] = attachment
        self._reroute()

    def _closed(self, attachment: Attachment) -> None:
        log.info("detached", of=attachment.instance_id)
        attachment.is_open = False
        self._attachments.pop(attachment.instance_id, None)
        self._reroute()
        self._place_again(attachment.give_up())
        self._pushes.attachment_broke()

    def _reroute(self) -> None:
        responsive = [a.instance_id for a in self._attachments.values() if not a.is_stalled]
        # A silent instance is better than none.
        self._route = Rendezvous(responsive or self._attachments)
        homeless, self._homeless = self._homeless, []
        for request in self._wanted(homeless):
            self._place(request)

    def _place(self, request: Request) -> None:
        instance_id = self._route.pick(request.slot)
        if instance_id is None:
            self._homeless.append(request)
        else:
            self._attachments[instance_id].put(request)

    def _place_again(self, requests: Iterable[Request]) -> None:
        for request in self._wanted(requests):
            self._tally.repeats += 1
            self._place(request)

    def _wanted(self, requests: Iterable[Request]) -> Iterator[Request]:
        """Forget the rest. A late `open` would even replace the session that came after it."""
        for request in requests:
            if request.requester.is_over:
                self._unanswered_bytes -= len(request.frame)
            else:
                yield request

    async def _check_answers(self) -> None:
        while True:
            await self._clock.sleep(0.25)
            self.check_answers()

    def check_answers(self) -> None:
        """Ask elsewhere what was not answered in time."""
        now, within = self._clock.monotonic(), self._limits.answer_within.total_seconds()
        due, silent = now - within, now - _SILENT * within
        for attachment in [*self._attachments.values()]:
            late = attachment.overdue(due)
            if not late:
                continue
            # An instance that stops does so with requests behind which it was still heard.
            if attachment.heard_at < max(late[0].asked_at, silent):
                self._stall(attachment)
            else:
                self._pass_on(attachment, late)

    def _stall(self, attachment: Attachment) -> None:
        """Nothing at all was heard since: ask the others, until something is heard again."""
        if len(self._attachments) == 1:
            return
        log.warning("an instance is silent", instance=attachment.instance_id)
        attachment.is_stalled = True
        self._reroute()
        if self._route.instance_ids != (attachment.instance_id,):
            self._place_again(attachment.give_up())

    def _pass_on(self, attachment: Attachment, late: list[Request]) -> None:
        for request in late:
            ranked = self._route.ranked(request.slot)
            if len(ranked) < 2 or attachment.instance_id not in ranked:
                continue
            after = ranked[(ranked.index(attachment.instance_id) + 1) % len(ranked)]
            self._tally.repeats += 1
            del attachment.unanswered[request.id]
            self._attachments[after].put(request)
