"""When the next try is, and when a provider is left alone; pure."""

import random
from datetime import timedelta

from mesh.clock import Clock

_FIRST = timedelta(seconds=1)
_LONGEST = timedelta(minutes=5)
_FAILURES = 5
_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=1)
# What a provider may ask for; more would only be forgotten.
_MOST_ASKED = timedelta(hours=1)


def next_try(tries: int, asked: timedelta | None, chance: random.Random) -> timedelta:
    """How long to wait after so many tries before this one, but no less than was asked for.

    Half of the wait is drawn, so that those who failed together do not come back together.
    """
    bound = min(_FIRST * (1 << min(tries, 10)), _LONGEST)
    return bound / 2 * (1 + chance.random()) + min(asked or timedelta(), _MOST_ASKED)


class Gate:
    """Lets requests pass to one provider: within its quota, and not while it is in trouble.

    After five failures in a row it closes, for a second first and for twice as long after each
    further one; then a single request tries it. A provider that says when to come back is left
    alone until then.
    """

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._each = 1 / per_second
        self._burst = max(1.0, per_second) * self._each
        self._clock = clock
        self._full_at = 0.0  # when all permits are there again
        self._failures = 0
        self._closed_until = 0.0
        self._is_trying = False

    @property
    def is_closed(self) -> bool:
        """Whether the provider is in trouble, as far as is known."""
        return self._failures >= _FAILURES

    def wait(self) -> timedelta:
        """Zero: the request may go, and its end must be told. Else come back after that time."""
        now = self._clock.monotonic()
        if now < self._closed_until:
            return timedelta(seconds=self._closed_until - now)
        if self.is_closed and self._is_trying:
            return _PAUSE
        full_at = max(self._full_at, now) + self._each
        if full_at - now > self._burst + 1e-9:
            return timedelta(seconds=full_at - now - self._burst)
        self._full_at = full_at
        self._is_trying = self.is_closed
        return timedelta()

    def succeeded(self) -> None:
        """The provider does its work."""
        self._failures = 0
        self._is_trying = False

    def failed(self, asked: timedelta | None) -> None:
        """The provider did not do its work, and may have said when to come back."""
        self._failures += 1
        self._is_trying = False
        pause = min(asked or timedelta(), _MOST_ASKED)
        if self.is_closed:
            pause = max(
                pause, min(_PAUSE * (1 << min(self._failures - _FAILURES, 10)), _LONGEST_PAUSE)
            )
        until = self._clock.monotonic() + pause.total_seconds()
        self._closed_until = max(self._closed_until, until)
