"""Compares the heads of live sessions with their queues: how a lost doorbell heals."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import timedelta

from mesh.clock import Clock, SystemClock
from svc_gateway import to_service
from svc_gateway.attach import Attach, Request
from svc_gateway.sessions import Sessions
from svc_gateway.stream import DeviceStream
from whimbrel.message.v1 import attach_pb2

_MOST_A_REQUEST = 500
_LOOK_SECONDS = 0.25
_SLOWEST = 1.4  # times the interval: rounds drift apart, so that gateways do not come at once


class Heads:
    """Asks where the queues stand, in rounds, and tells each session about its own.

    Rounds come every `interval` to 1.4 times that; soon after something may have lost pushes; and
    every `interval_blind` while the registry cannot be reached, because then nobody pushes. Whoever
    else compares heads does so `on_round`.
    """

    def __init__(
        self,
        attach: Attach,
        sessions: Sessions,
        *,
        interval: timedelta,
        interval_blind: timedelta,
        spread: timedelta,
        on_round: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._attach = attach
        self._sessions = sessions
        self._interval = interval.total_seconds()
        self._interval_blind = interval_blind.total_seconds()
        self._spread = spread.total_seconds()
        self._on_round = on_round
        self._clock = clock or SystemClock()
        self._chance = chance or random.Random()  # noqa: S311
        self._is_blind = False
        self._outstanding = 0
        self._due = self._clock.monotonic() + self._pause()

    def soon(self) -> None:
        """Compare all sessions within the spread: pushes may have been lost."""
        self._bring_forward(self._chance.uniform(0, self._spread))

    def blind(self, *, is_blind: bool) -> None:
        """Whether routes cannot be registered, so that pushes do not find their way."""
        self._is_blind = is_blind
        if is_blind:
            self.soon()

    async def run(self) -> None:
        """Compare in rounds; ends by cancellation only."""
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            if self._clock.monotonic() < self._due:
                continue
            self._due = self._clock.monotonic() + self._pause()
            self._on_round()
            # A round that is not answered yet is repeated by the streams; another adds nothing.
            if not self._outstanding:
                await self._compare_all()

    def compare(self, streams: Iterable[DeviceStream]) -> None:
        """Ask where these sessions' queues stand, now."""
        by_instance: defaultdict[str | None, list[DeviceStream]] = defaultdict(list)
        for stream in streams:
            by_instance[self._attach.pick(stream.service.slot)].append(stream)
        for group in by_instance.values():
            for first in range(0, len(group), _MOST_A_REQUEST):
                self._ask(group[first : first + _MOST_A_REQUEST])

    @property
    def is_over(self) -> bool:
        return False

    def answered(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        """Tell the sessions; a refusal is made good by the next round."""
        self._outstanding -= 1
        for head in answer.heads.heads:
            stream = self._sessions.find((head.device.user_id, head.device.device_id))
            if stream is not None:
                stream.session.head(
                    head_pos=head.head_pos,
                    acked_pos=head.acked_pos,
                    epoch=head.epoch,
                    receipt_version=head.receipt_version,
                    linked=head.linked,
                )

    async def _compare_all(self) -> None:
        streams = [*self._sessions]
        for first in range(0, len(streams), _MOST_A_REQUEST):
            self.compare(streams[first : first + _MOST_A_REQUEST])
            await self._clock.sleep(0)  # between the slices, messages go on

    def _ask(self, streams: list[DeviceStream]) -> None:
        self._outstanding += 1
        id_ = self._attach.new_id()
        frame = to_service.fetch_heads(id_, [stream.device.address for stream in streams])
        self._attach.ask(Request(id_, streams[0].service.slot, frame, self))

    def _bring_forward(self, wait: float) -> None:
        self._due = min(self._due, self._clock.monotonic() + wait)

    def _pause(self) -> float:
        if self._is_blind:
            return self._interval_blind
        return self._chance.uniform(self._interval, _SLOWEST * self._interval)
