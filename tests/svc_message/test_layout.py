import pytest

from mesh.ids import SLOTS
from svc_message.shards.layout import (
    Owner,
    SlotRow,
    SlotState,
    first_owners,
    owner_of,
    present_owners,
    rows_of,
)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_each_shard_gets_an_equal_run_of_slots(count) -> None:
    names = [f"shard-{number}" for number in range(count)]

    owners = first_owners(names)

    assert len(owners) == SLOTS
    assert [owner.shard for owner in owners] == sorted(
        (owner.shard for owner in owners), key=names.index
    )
    for number, name in enumerate(names):
        assert owners[number * SLOTS // count] == Owner(name, 1)


def test_what_the_shards_say_of_the_first_layout_is_the_first_layout() -> None:
    owners = first_owners(["a", "b", "c"])

    tables = {shard: rows_of(shard, owners) for shard in ("a", "b", "c")}

    assert present_owners(tables) == owners
    assert present_owners({"b": tables["b"]}) == owners


def test_the_newest_word_on_a_slot_counts() -> None:
    rows = {
        "a": SlotRow(7, SlotState.MOVED, "b", 4),
        "b": SlotRow(7, SlotState.OWNED, None, 4),
        "c": SlotRow(7, SlotState.MOVED, "a", 3),
    }

    assert owner_of(rows) == Owner("b", 4)


def test_a_frozen_slot_is_its_shard_s_until_that_shard_says_otherwise() -> None:
    rows = {
        "a": SlotRow(7, SlotState.FROZEN, None, 3),
        "b": SlotRow(7, SlotState.INCOMING, None, 4),
    }

    assert owner_of(rows) == Owner("a", 3)


def test_a_slot_that_nobody_knows_is_not_guessed() -> None:
    with pytest.raises(LookupError):
        present_owners({"a": rows_of("a", first_owners(["a"]))[1:]})
