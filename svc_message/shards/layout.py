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


def owner_of(rows: Mapping[str, SlotRow]) -> Owner:
    """The owner of one slot by the newest word on it. Raises LookupError if it has none."""
    claims = [_claim(shard, row) for shard, row in rows.items() if row.state != SlotState.INCOMING]
    if not claims:
        raise LookupError("no shard knows the owner of the slot")
    return max(claims, key=lambda claim: claim.version)


def present_owners(tables: Mapping[str, Iterable[SlotRow]]) -> list[Owner]:
    """The owner of each slot by the newest word on it. Raises LookupError if a slot has none."""
    words: list[dict[str, SlotRow]] = [{} for _ in range(SLOTS)]
    for shard, rows in tables.items():
        for row in rows:
            words[row.slot][shard] = row
    return [owner_of(rows) for rows in words]


def rows_of(shard: str, owners: Sequence[Owner]) -> list[SlotRow]:
    """The rows of a shard that has none yet."""
    return [_row(shard, slot, owner) for slot, owner in enumerate(owners)]


def _claim(shard: str, row: SlotRow) -> Owner:
    return Owner(row.moved_to or shard, row.version)


def _row(shard: str, slot: int, owner: Owner) -> SlotRow:
    if owner.shard == shard:
        return SlotRow(slot, SlotState.OWNED, None, owner.version)
    return SlotRow(slot, SlotState.MOVED, owner.shard, owner.version)
