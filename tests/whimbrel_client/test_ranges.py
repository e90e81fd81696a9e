"""Sets of seqs as ranges behave as sets of seqs."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from whimbrel_client import SeqRanges

seqs = st.integers(min_value=1, max_value=40)
pairs = st.lists(st.tuples(seqs, seqs).map(sorted).map(tuple))


@given(st.lists(seqs))
def test_adding_seqs_one_by_one_gives_what_a_set_gives(added: list[int]) -> None:
    ranges, expected = SeqRanges(), set[int]()

    for seq in added:
        assert (ranges.add(seq) is not None) == (seq not in expected)
        expected.add(seq)

    assert {seq for seq in range(50) if seq in ranges} == expected
    assert_minimal(ranges)


@given(pairs)
def test_adding_ranges_gives_what_a_set_gives(added: list[tuple[int, int]]) -> None:
    ranges = SeqRanges(added)

    expected = {seq for first, last in added for seq in range(first, last + 1)}

    assert {seq for seq in range(50) if seq in ranges} == expected
    assert_minimal(ranges)


@given(pairs, seqs)
def test_what_adding_tells_is_enough_to_keep_a_table_the_same(
    before: list[tuple[int, int]], seq: int
) -> None:
    ranges = SeqRanges(before)
    table = dict(ranges)

    added = ranges.add(seq)
    if added is not None:
        if added.swallowed_next:
            del table[seq + 1]
        table[added.first] = added.last

    assert sorted(table.items()) == list(ranges)


def assert_minimal(ranges: SeqRanges) -> None:
    """Ascending, disjoint, and never two where one would do."""
    flat = [bound for pair in ranges for bound in pair]
    assert flat == sorted(flat)
    bounds = list(ranges)
    assert all(one[1] + 1 < two[0] for one, two in itertools.pairwise(bounds))
