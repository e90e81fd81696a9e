"""The server's time, as the client last learned it."""

import time
from collections.abc import Callable

_DAY_MS = 24 * 60 * 60 * 1000


class ServerClock:
    """The server's clock: what it last said, carried on by the local monotonic clock.

    The local wall clock is only a first guess: a device whose date is wrong by years still works.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._base_ms = int(wall() * 1000)
        self._learned_at = monotonic()

    def learn(self, server_ms: int) -> None:
        """The server says that it is this time now."""
        self._base_ms = server_ms
        self._learned_at = self._monotonic()

    def now_ms(self) -> int:
        """The server's time in whole milliseconds since 1970."""
        return self._base_ms + int((self._monotonic() - self._learned_at) * 1000)

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return self._monotonic()


def days_ms(days: int) -> int:
    """So many days in milliseconds."""
    return days * _DAY_MS
