"""Sets of seqs kept as ranges; pure."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Added(NamedTuple):
    """What adding a seq did: it now lies in `first` to `last`."""

    first: int
    last: int
    # The range that began at seq + 1 is part of this one now.
    swallowed_next: bool


class SeqRanges:
    """A set of seqs, small however many they are as long as they are close together."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add_range(first, last)

    def __contains__(self, seq: int) -> bool:
        place = bisect_right(self._firsts, seq) - 1
        return place >= 0 and seq <= self._lasts[place]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqRanges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, seq: int) -> Added | None:
        """Add one seq; None if it was there."""
        firsts, lasts = self._firsts, self._lasts
        place = bisect_right(firsts, seq) - 1
        if place >= 0 and seq <= lasts[place]:
            return None
        joins_left = place >= 0 and lasts[place] == seq - 1
        joins_right = place + 1 < len(firsts) and firsts[place + 1] == seq + 1
        last = lasts[place + 1] if joins_right else seq
        if joins_right:
            del firsts[place + 1], lasts[place + 1]
        if joins_left:
            lasts[place] = last
            return Added(firsts[place], last, joins_right)
        firsts.insert(place + 1, seq)
        lasts.insert(place + 1, last)
        return Added(seq, last, joins_right)

    def add_range(self, first: int, last: int) -> None:
        """Add all from `first` to `last`."""
        if first > last:
            return
        low = bisect_right(self._firsts, first) - 1
        if low < 0 or self._lasts[low] < first - 1:
            low += 1
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
