"""What is acknowledged, and what is told as read."""

from hypothesis import given
from hypothesis import strategies as st

from whimbrel_client.acks import Acks, Reads

BOB = b"b" * 16


def test_only_what_is_stored_is_acked_and_only_once() -> None:
    acks = Acks()

    acks.receive(5)
    before = acks.take()
    acks.stored(5)
    after = [acks.take(), acks.take()]

    assert before is None
    assert after == [5, None]


def test_a_hole_in_the_positions_is_noticed() -> None:
    acks = Acks()

    assert [acks.receive(pos) for pos in (7, 8, 10)] == [True, True, False]


@given(st.lists(st.integers(1, 30), max_size=40))
def test_no_ack_ever_covers_a_position_that_did_not_come(positions: list[int]) -> None:
    acks, came = Acks(), set[int]()

    for pos in positions:
        if acks.receive(pos):
            came.add(pos)
            acks.stored(pos)
        acked = acks.take()
        assert acked is None or set(range(min(came), acked + 1)) <= came


def test_a_read_is_told_once_and_the_newest_follows() -> None:
    reads = Reads()

    reads.want(BOB, 3)
    first = reads.take()
    reads.want(BOB, 5)
    reads.want(BOB, 4)
    while_in_flight = reads.take()
    recorded = reads.recorded(BOB)
    then = reads.take()
    last = reads.recorded(BOB)

    assert (first, while_in_flight, then) == ([(BOB, 3)], [], [(BOB, 5)])
    assert (recorded, last) == (3, 5)
    assert reads.take() == []


def test_a_read_without_an_answer_is_told_again_on_the_next_stream() -> None:
    reads = Reads()
    reads.want(BOB, 3)
    reads.take()

    reads.stream_ended()

    assert reads.take() == [(BOB, 3)]
