"""The gateway's spans in the traces of sampled messages; there is none while that is off.

A message is sampled here, when it comes, or never. What a device gets after it was away begins a
trace of its own, which links to the one that the message was sent in.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mesh.ids import ulid_text
from mesh.telemetry import OpenSpan, Telemetry

_MOST_SENDS = 10_000
_MOST_COMING = 1024


class Traces:
    """The sends of this gateway that are sampled and not answered, and what concerns no stream."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self._sends: OrderedDict[int, OpenSpan] = OrderedDict()

    def sent(self, request_id: int) -> bytes:
        """A send has come: where its trace stands, or nothing if it is not sampled."""
        span = self.telemetry.start("send")
        if span is None:
            return b""
        self._sends[request_id] = span
        if len(self._sends) > _MOST_SENDS:  # of streams that ended before the answer
            self._sends.popitem(last=False)[1].end()
        return span.trace

    def answered(self, request_id: int, answer: str, message_id: bytes = b"") -> None:
        """The sender hears what became of it."""
        span = self._sends.pop(request_id, None)
        if span is not None:
            span.set("answer", answer)
            if message_id:
                span.set("message.id", ulid_text(message_id))
            span.end()

    def rung(self, trace: bytes) -> OpenSpan | None:
        """A channel's post is being handed to the streams of those who follow it here."""
        return self.telemetry.start("ring", trace)


class _Coming(NamedTuple):
    trace: bytes
    was_away: bool


class Acked(NamedTuple):
    """A sampled message that a device was given, and then has acked."""

    pos: int
    author_id: bytes
    group_id: bytes
    span: OpenSpan


class StreamTraces:
    """What one stream is delivered that is sampled."""

    __slots__ = ("_acking", "_coming", "_delivered", "_telemetry")

    def __init__(self, traces: Traces) -> None:
        self._telemetry = traces.telemetry
        self._coming: dict[int, _Coming] = {}
        self._delivered: deque[Acked] = deque()
        self._acking: deque[tuple[int, OpenSpan]] = deque()

    def coming(self, pos: int, trace: bytes, *, was_away: bool) -> None:
        """What is at this place of the queue is sampled."""
        if len(self._coming) < _MOST_COMING:
            self._coming.setdefault(pos, _Coming(trace, was_away))

    def delivered(self, pos: int, message_id: bytes, author_id: bytes, group_id: bytes) -> None:
        """It is on its way to the device."""
        coming = self._coming.pop(pos, None)
        if coming is None:
            return
        if coming.was_away:
            span = self._telemetry.start("deliver", links=[coming.trace])
        else:
            span = self._telemetry.start("deliver", coming.trace)
        if span is not None:
            span.set("message.id", ulid_text(message_id))
            self._delivered.append(Acked(pos, author_id, group_id, span))

    def acked(self, up_to_pos: int) -> Sequence[Acked]:
        """The device has stored it: the acks that go on from here, each with its place."""
        acks = []
        while self._delivered and self._delivered[0].pos <= up_to_pos:
            given = self._delivered.popleft()
            given.span.end()
            ack = self._telemetry.start("ack", given.span.trace)
            if ack is not None:
                self._acking.append((given.pos, ack))
                acks.append(given._replace(span=ack))
        return acks

    def recorded(self, acked_pos: int) -> None:
        """The acks are durable."""
        while self._acking and self._acking[0][0] <= acked_pos:
            self._acking.popleft()[1].end()
        for pos in [pos for pos in self._coming if pos <= acked_pos]:
            del self._coming[pos]

    def told(self, traces: Iterable[bytes]) -> None:
        """The stream has a receipt of messages that it has sent."""
        for at in traces:
            span = self._telemetry.start("receipt", at)
            if span is not None:
                span.end()

    def close(self) -> None:
        """The stream is over: what is open shows as far as it came."""
        for given in self._delivered:
            given.span.end()
        for _, ack in self._acking:
            ack.end()
