from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mesh import rendezvous
from mesh.rendezvous import Rendezvous

instance_sets = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=8)
keys = st.one_of(st.integers(0, 16383), st.binary(max_size=20))


@given(instance_sets, keys)
def test_everybody_with_the_same_set_picks_the_same(instance_ids, key):
    ordered = sorted(instance_ids)

    assert Rendezvous(ordered).pick(key) == Rendezvous(reversed(ordered)).pick(key)


@given(instance_sets, keys)
def test_the_ranking_starts_with_the_pick_and_names_each_once(instance_ids, key):
    instances = Rendezvous(instance_ids)

    ranked = instances.ranked(key)

    assert ranked[0] == instances.pick(key)
    assert sorted(ranked) == sorted(instance_ids)


@given(instance_sets, keys)
def test_the_next_in_the_ranking_is_the_pick_once_the_first_is_gone(instance_ids, key):
    ranked = Rendezvous(instance_ids).ranked(key)

    left = Rendezvous(set(instance_ids) - {ranked[0]})

    assert left.pick(key) == (ranked[1] if len(ranked) > 1 else None)


@given(instance_sets, st.text(min_size=1, max_size=8))
def test_only_the_keys_of_one_that_leaves_move(instance_ids, leaver):
    before, after = Rendezvous(instance_ids | {leaver}), Rendezvous(instance_ids - {leaver})

    moved = [slot for slot in range(200) if before.pick(slot) != after.pick(slot)]

    assert moved == [slot for slot in range(200) if before.pick(slot) == leaver]


def test_slots_are_shared_out_evenly():
    instances = Rendezvous(f"instance-{number}" for number in range(5))

    shares = Counter(instances.pick(slot) for slot in range(16384))

    assert all(abs(share - 16384 / 5) < 16384 / 5 * 0.1 for share in shares.values())


def test_an_instance_that_is_named_twice_counts_once():
    assert Rendezvous(["a", "b", "a"]).instance_ids == ("a", "b")


def test_nobody_is_picked_when_nobody_is_there():
    assert Rendezvous(()).pick(7) is None
    assert Rendezvous(()).ranked(7) == []


def test_the_pick_is_the_same_for_ever():
    # Two versions of this code in one mesh must send a slot to the same instance.
    instances = Rendezvous(["a", "b", "c"])

    assert "".join(instances.pick(slot) or "" for slot in range(16)) == "bbbaacbccbbcaaaa"


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(rendezvous, "_MOST_CACHED", 10)
    instances = Rendezvous(["a", "b"])

    for number in range(100):
        instances.pick(number)

    assert len(instances._picked) <= 10
