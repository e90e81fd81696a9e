"""What became of the messages, counted from what the clients saw; pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from whimbrel_client import Tick


@dataclass(frozen=True, slots=True)
class Said:
    """A message as its sender knows it."""

    text: str
    # What the mesh answered; None: nothing yet.
    message_id: bytes | None
    seq: int | None
    # By the receipts that came back.
    tick: Tick


@dataclass(frozen=True, slots=True)
class Heard:
    """A message as its receiver saw it, in the order in which it was seen."""

    text: str
    message_id: bytes
    seq: int
    is_encrypted: bool = True


@dataclass(frozen=True, slots=True)
class Tally:
    """One direction of a conversation, or several added up."""

    sent: int = 0
    accepted: int = 0
    delivered: int = 0
    read: int = 0
    lost: int = 0
    seen_twice: int = 0
    out_of_order: int = 0
    # Seen, but never said, at another place than the sender was told, or in the clear.
    wrong: int = 0

    @property
    def is_right(self) -> bool:
        """All went through, each once, in order."""
        return self.sent == self.accepted == self.delivered == self.read and not self.faults

    @property
    def faults(self) -> int:
        """How often a promise was broken."""
        return self.lost + self.seen_twice + self.out_of_order + self.wrong

    def __add__(self, other: "Tally") -> "Tally":
        names = [field.name for field in fields(self)]
        return Tally(*(getattr(self, name) + getattr(other, name) for name in names))


def tally(said: Sequence[Said], heard: Sequence[Heard]) -> Tally:
    """Compare what one person said with what the other saw; texts are unique."""
    times = Counter(one.text for one in heard)
    by_text = {one.text: one for one in said}
    accepted = [one for one in said if one.seq is not None]
    return Tally(
        sent=len(said),
        accepted=len(accepted),
        delivered=sum(one.tick >= Tick.DELIVERED for one in said),
        read=sum(one.tick >= Tick.READ for one in said),
        lost=sum(one.text not in times for one in accepted),
        seen_twice=sum(count - 1 for count in times.values()),
        out_of_order=_out_of_order(said, heard),
        wrong=sum(not _is_as_said(one, by_text) for one in heard),
    )


def _out_of_order(said: Sequence[Said], heard: Sequence[Heard]) -> int:
    """How often something came before what was said, or numbered, before it."""
    place = {one.text: number for number, one in enumerate(said)}
    seen = [(place.get(one.text, -1), one.seq) for one in heard]
    return sum(one[0] >= two[0] or one[1] >= two[1] for one, two in pairwise(seen))


def _is_as_said(heard: Heard, by_text: dict[str, Said]) -> bool:
    said = by_text.get(heard.text)
    if said is None or not heard.is_encrypted:
        return False
    return said.seq is None or (said.message_id, said.seq) == (heard.message_id, heard.seq)
