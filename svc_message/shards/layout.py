"""Which shard owns which slot before anything has moved, and what a new shard is told; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from mesh.ids import SLOTS

_FIRST_VERSION = 1


class SlotState(IntEnum):
    """What a shard says of a slot, in its `slot` table."""

    OWNED = 1
    FROZEN = 2
    INCOMING = 3
    MOVED = 4


@dataclass(frozen=True, slots=True)
class SlotRow:
    """A row of a shard's `slot` table."""

    slot: int
    state: SlotState
    moved_to: str | None
    version: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a slot, and since which version of the map."""

    shard: str
    version: int


def first_owners(shards: Sequence[str]) -> list[Owner]:
    """The owner of each slot while no shard has any: equal runs of slots, in the shards' order."""
    count = len(shards)
    owners: list[Owner] = []
    for number, shard in enumerate(shards):
        until = (number + 1) * SLOTS // count
        owners += [Owner(shard, _FIRST_VERSION)] * (until - len(owners))
    return owners


def present_owners(tables: Mapping[str, Iterable[SlotRow]]) -> list[Owner]:
    """The owner of each slot by the newest word on it. Raises LookupError if a slot has none."""
    newest: dict[int, Owner] = {}
    for shard, rows in tables.items():
        for row in rows:
            owner = _owner(shard, row)
            if owner is not None and _is_newer(owner, newest.get(row.slot)):
                newest[row.slot] = owner
    lost = SLOTS - len(newest)
    if lost:
        raise LookupError(f"no shard knows the owner of {lost} slots")
    return [newest[slot] for slot in range(SLOTS)]


def rows_of(shard: str, owners: Sequence[Owner]) -> list[SlotRow]:
    """The rows of a shard that has none yet."""
    return [_row(shard, slot, owner) for slot, owner in enumerate(owners)]


def _owner(shard: str, row: SlotRow) -> Owner | None:
    if row.state == SlotState.INCOMING:  # not its own until the source says so
        return None
    return Owner(row.moved_to or shard, row.version)


def _is_newer(owner: Owner, known: Owner | None) -> bool:
    return known is None or owner.version > known.version


def _row(shard: str, slot: int, owner: Owner) -> SlotRow:
    if owner.shard == shard:
        return SlotRow(slot, SlotState.OWNED, None, owner.version)
    return SlotRow(slot, SlotState.MOVED, owner.shard, owner.version)
