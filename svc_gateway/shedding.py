"""Tells the other gateways how many sessions there are here, and sends them what is too many.

What the others have told is believed only while what this one told is seen among it: without etcd
no session is moved.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog

from mesh.clock import Clock
from mesh.errors import Unavailable
from mesh.metrics import SESSIONS_SHED
from mesh.telemetry import Telemetry
from svc_gateway.balance import Balance
from svc_gateway.drain import send_away
from svc_gateway.sessions import Sessions
from svc_gateway.stream import DeviceStream

log = structlog.get_logger(__name__)

# What instances note their numbers under, in etcd.
SESSION_COUNTS = "sessions"

# A change below this share is not told: it costs a write, and one more read at each gateway.
_NOTABLE = 0.05
_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Board:
    """Where instances note how many sessions they have; `note` raises Unavailable."""

    notes: Callable[[], Mapping[str, bytes]]
    note: Callable[[bytes], Awaitable[None]]


async def _unheard(_note: bytes) -> None:
    """There is nobody to tell."""


NOBODY_ELSE = Board(notes=dict, note=_unheard)


class Shedding:
    """Compares this instance with the others, every `interval`."""

    def __init__(
        self,
        sessions: Sessions,
        board: Board,
        *,
        instance_id: str,
        balance: Balance,
        interval: timedelta,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._board = board
        self._instance_id = instance_id
        self._balance = balance
        self._interval = interval
        self._clock = clock
        self._told: int | None = None
        self._shed = telemetry.counter(SESSIONS_SHED)

    async def run(self) -> None:
        """Round after round."""
        while True:
            await self._round()
            await self._clock.sleep(self._interval.total_seconds())

    async def _round(self) -> None:
        """Tell, compare, and send away what is too many, over the time of a round."""
        staying = self._sessions.staying
        counts = _read(self._board.notes())
        seen = counts.pop(self._instance_id, None)
        is_known = seen is not None and seen == self._told
        surplus = self._balance.surplus(len(staying), list(counts.values()) if is_known else None)
        await self._tell(len(staying), seen)
        if surplus:
            log.info("sending sessions to other gateways", sessions=surplus, of=len(staying))
            leaving = staying[:surplus]
            await send_away(leaving, spread=self._interval, retire=self._move, clock=self._clock)

    async def _tell(self, count: int, seen: int | None) -> None:
        if seen is not None and abs(count - seen) <= seen * _NOTABLE:
            return
        self._told = count
        try:
            await self._board.note(b"%d" % count)
        except Unavailable:
            log.debug("the other gateways were not told", sessions=count)

    def _move(self, stream: DeviceStream) -> None:
        stream.session.move()
        if stream.session.is_moved:  # else it has ended meanwhile
            self._shed.add(1)


def _read(notes: Mapping[str, bytes]) -> dict[str, int]:
    """The numbers; one that cannot be read is as if its instance had told none yet."""
    return {
        instance_id: int(note)
        for instance_id, note in notes.items()
        if note.isdigit() and len(note) <= _MOST_DIGITS
    }
