"""How long to wait before the next try: full jitter, so that a crowd does not come back as one."""

import random
from datetime import timedelta


class Backoff:
    """Doubles the bound after each failure and draws evenly below it."""

    def __init__(
        self,
        first: timedelta = timedelta(milliseconds=100),
        most: timedelta = timedelta(seconds=5),
        *,
        chance: random.Random | None = None,
    ) -> None:
        self._first = first.total_seconds()
        self._most = most.total_seconds()
        self._chance = chance or random.Random()  # noqa: S311  spreads load, hides nothing
        self._bound = self._first

    def next(self) -> float:
        """Seconds to wait before the next try."""
        wait = self._chance.uniform(0, self._bound)
        self._bound = min(self._bound * 2, self._most)
        return wait

    def reset(self) -> None:
        """A try succeeded: the next failure starts small again."""
        self._bound = self._first
