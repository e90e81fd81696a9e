"""How long messages take to each tick, told to the metrics; nothing while those are off.

Acceptance has the shard's clock, the rest this process's: a difference of clocks is in the times.
"""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from mesh.metrics import ACCEPTED_DELIVERED, DELIVERED_READ, SENT_ACCEPTED
from mesh.telemetry import Telemetry
from svc_gateway.reads import Peer

_ONLINE = {"stream": "online"}
_OFFLINE = {"stream": "offline"}
_MOST_CHATS = 64


class Ticks:
    """The three histograms of this gateway."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._accepted = telemetry.histogram(SENT_ACCEPTED)
        self.delivered = telemetry.histogram(ACCEPTED_DELIVERED)
        self.read = telemetry.histogram(DELIVERED_READ)

    def accepted(self, since: float) -> None:
        """A send that came at `since`, by the monotonic clock, has its answer."""
        self._accepted.record(time.monotonic() - since)


@dataclass(slots=True)
class _Delivery:
    pos: int
    chat: Peer
    seq: int
    accepted_at: float


class StreamTicks:
    """What one stream has delivered and not seen acked yet, and the last seq acked of each chat."""

    __slots__ = ("_acked", "_opened_at", "_ticks", "_waiting")

    def __init__(self, ticks: Ticks) -> None:
        self._ticks = ticks
        self._waiting: deque[_Delivery] = deque()
        self._acked: OrderedDict[Peer, tuple[int, float]] = OrderedDict()
        self._opened_at = float("inf")

    def opened(self, server_time: float) -> None:
        """The stream is open; what was accepted earlier had to wait for it."""
        self._opened_at = server_time

    def delivered(self, pos: int, chat: Peer, seq: int, accepted_at: float) -> None:
        """An envelope is on its way to the device."""
        self._waiting.append(_Delivery(pos, chat, seq, accepted_at))

    def acked(self, up_to_pos: int) -> None:
        """The device's ack is durable: two ticks for what it covers."""
        now, wall = time.monotonic(), time.time()
        while self._waiting and self._waiting[0].pos <= up_to_pos:
            one = self._waiting.popleft()
            labels = _ONLINE if one.accepted_at >= self._opened_at else _OFFLINE
            self._ticks.delivered.record(max(0.0, wall - one.accepted_at), labels)
            self._acked[one.chat] = one.seq, now
            self._acked.move_to_end(one.chat)
        while len(self._acked) > _MOST_CHATS:
            self._acked.popitem(last=False)

    def read(self, chat: Peer, up_to_seq: int) -> None:
        """A read is durable: the ticks turn blue."""
        seq, at = self._acked.get(chat, (0, 0.0))
        if seq and up_to_seq >= seq:
            del self._acked[chat]
            self._ticks.read.record(time.monotonic() - at)
