from hypothesis import given
from hypothesis import strategies as st

from mesh.replica import Replica

keys = st.sampled_from("abc")
entries = st.dictionaries(keys, st.binary(max_size=1))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), entries),
        st.tuples(
            st.just("changes"), st.dictionaries(keys, st.one_of(st.none(), st.binary(max_size=1)))
        ),
    )
)


def test_a_full_read_and_changes_are_told_to_listeners():
    replica, told = Replica(grace=10), []
    replica.on_change(told.append)

    replica.replace({"a": b"1"}, 0)
    replica.apply({"b": b"2"})
    replica.apply({"a": None})

    assert told == [{}, {"a": b"1"}, {"a": b"1", "b": b"2"}, {"b": b"2"}]


def test_what_changes_nothing_is_told_to_nobody():
    replica, told = Replica(grace=10), []
    replica.replace({"a": b"1"}, 0)
    replica.on_change(told.append)

    replica.replace({"a": b"1"}, 1)
    replica.apply({"a": b"1", "b": None})

    assert told == [{"a": b"1"}]
    assert replica.version == 1


def test_an_entry_missing_from_a_full_read_stays_for_the_grace():
    replica = Replica(grace=10)
    replica.replace({"a": b"1", "b": b"2"}, 0)

    replica.replace({"b": b"2"}, 100)
    assert (replica.entries, replica.is_doubtful) == ({"a": b"1", "b": b"2"}, True)
    replica.replace({"b": b"2"}, 109)
    assert (replica.entries, replica.is_doubtful) == ({"a": b"1", "b": b"2"}, True)
    replica.replace({"b": b"2"}, 110)

    assert (replica.entries, replica.is_doubtful) == ({"b": b"2"}, False)


def test_a_missing_entry_that_comes_back_is_trusted_again():
    replica = Replica(grace=10)
    replica.replace({"a": b"1"}, 0)

    replica.replace({}, 5)
    replica.apply({"a": b"1"})
    replica.replace({}, 16)

    assert (replica.entries, replica.is_doubtful) == ({"a": b"1"}, True)


def test_a_missing_entry_whose_deletion_is_told_leaves_at_once():
    replica = Replica(grace=10)
    replica.replace({"a": b"1"}, 0)

    replica.replace({}, 5)
    replica.apply({"a": None})

    assert (replica.entries, replica.is_doubtful) == ({}, False)


@given(steps, entries)
def test_whatever_happened_two_reads_a_grace_apart_show_what_is_there(taken, last):
    replica = Replica(grace=10)
    for now, (kind, content) in enumerate(taken):
        if kind == "read":
            replica.replace(content, now)
        else:
            replica.apply(content)

    replica.replace(last, 1000)
    replica.replace(last, 1010)

    assert replica.entries == last
    assert not replica.is_doubtful


@given(steps)
def test_listeners_see_every_version_once(taken):
    replica, told = Replica(grace=0), []
    replica.on_change(lambda content: told.append((replica.version, dict(content))))

    for now, (kind, content) in enumerate(taken):
        if kind == "read":
            replica.replace(content, now)
        else:
            replica.apply(content)

    assert [version for version, _ in told] == list(range(replica.version + 1))
    assert told[-1][1] == replica.entries
