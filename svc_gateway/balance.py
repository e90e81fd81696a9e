"""How many sessions an instance has beyond its share of the mesh's; pure."""

from collections.abc import Collection
from math import ceil

_TOLERANCE = 0.2
# A lease lasts two rounds: what an instance that has died told counts no more in the third.
_ROUNDS_BEFORE = 3
_MOST_OF_A_ROUND = 0.05


class Balance:
    """Compares round by round; begins late and well above the mean, and goes on down to about that.

    Both keep instances from passing the same sessions to and fro: what the others tell is some
    seconds old, and who has just started has few for a while.
    """

    def __init__(self, *, floor: int) -> None:
        self._floor = floor
        self._rounds_above = 0
        self._under_way = 0

    def surplus(self, own: int, others: Collection[int] | None) -> int:
        """How many sessions to send away in this round; None: what others have is not known."""
        if not others:
            return self._calm()
        mean = (own + sum(others) + self._under_way) / (1 + len(others))
        surplus = own - max(ceil(mean), self._floor)
        if surplus <= 0:
            return self._calm()
        if not self._is_shedding:
            if own <= mean * (1 + _TOLERANCE):
                return self._calm()
            self._rounds_above += 1
        if self._is_shedding:
            # Who was sent away has perhaps not arrived, or not been told by whom it came to.
            self._under_way = min(surplus, ceil(own * _MOST_OF_A_ROUND))
        return self._under_way

    @property
    def _is_shedding(self) -> bool:
        return self._rounds_above >= _ROUNDS_BEFORE

    def _calm(self) -> int:
        self._rounds_above = self._under_way = 0
        return 0
