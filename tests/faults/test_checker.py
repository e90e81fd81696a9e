"""The checker bites: each invariant of the contract, with a history that breaks it."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.faults.checker import Violation, is_quiet, violations
from tests.faults.history import (
    Acked,
    Answered,
    CaughtUp,
    Event,
    History,
    Opened,
    Queue,
    Read,
    Receipted,
    Received,
    Refused,
    Rest,
    Tried,
)

ONE, TWO = b"1" * 16, b"2" * 16
REST = Rest({"ann": Queue(0, 0, 0), "bob": Queue(2, 2, 0)})

OPENED = Opened(at=0, who="bob", epoch=1, head_pos=0)
CAUGHT_UP = CaughtUp(at=0.1, who="bob", pos=0)
TRIED = Tried(at=1, who="ann", client_id=ONE, to="bob", body=b"one", number=1)
ANSWERED = Answered(at=2, who="ann", client_id=ONE, message_id=b"m1", seq=1, accepted_at=100)
RECEIVED = Received(
    at=3,
    who="bob",
    peer="ann",
    seq=1,
    message_id=b"m1",
    sender="ann",
    body=b"one",
    accepted_at=100,
    pos=1,
)
ACKED = Acked(at=4, who="bob", up_to_pos=1)
DELIVERED = Receipted(at=5, who="ann", version=1, peer="bob", delivered=((1, 1),), read_up_to=0)
READ = Read(at=6, who="bob", peer="ann", up_to_seq=1)
READ_RECEIPT = replace(DELIVERED, at=7, version=2, read_up_to=1)

TRIED_2 = replace(TRIED, at=8, client_id=TWO, body=b"two", number=2)
ANSWERED_2 = replace(ANSWERED, at=9, client_id=TWO, message_id=b"m2", seq=2, accepted_at=101)
RECEIVED_2 = replace(RECEIVED, at=10, seq=2, message_id=b"m2", body=b"two", accepted_at=101, pos=2)
ACKED_2 = replace(ACKED, at=11, up_to_pos=2)
DELIVERED_2 = replace(READ_RECEIPT, at=12, version=3, delivered=((1, 2),))
REFUSED_2 = Refused(at=20, who="ann", client_id=TWO, reason="BODY_EMPTY", retry_after=None)

GOOD: tuple[Event, ...] = (
    OPENED,
    CAUGHT_UP,
    TRIED,
    ANSWERED,
    RECEIVED,
    ACKED,
    DELIVERED,
    READ,
    READ_RECEIPT,
    TRIED_2,
    ANSWERED_2,
    RECEIVED_2,
    ACKED_2,
    DELIVERED_2,
)


def check(events: Iterable[Event], rest: Rest | None = None, **bounds: float) -> list[Violation]:
    return violations(history_of(events), rest, **bounds)


def history_of(events: Iterable[Event]) -> History:
    history = History()
    history.events = sorted(events, key=lambda event: event.at)
    return history


def without(*left_out: Event) -> list[Event]:
    return [event for event in GOOD if event not in left_out]


def changed(event: Event, **changes: object) -> list[Event]:
    return [replace(one, **changes) if one is event else one for one in GOOD]


def test_a_good_history_has_no_violation() -> None:
    assert check(GOOD, REST) == []


BROKEN: list[tuple[int, str, list[Event]]] = [
    (1, "an accepted message never arrived", without(RECEIVED_2)),
    (1, "a message arrived changed", changed(RECEIVED, body=b"two")),
    (1, "a message arrived changed", changed(RECEIVED, seq=7)),
    (1, "a message arrived with another time", changed(RECEIVED, accepted_at=99)),
    (2, "two messages claim one place", changed(RECEIVED_2, seq=1)),
    (3, "a retry got another answer", [*GOOD, replace(ANSWERED, at=20, seq=3)]),
    (3, "a retry got another answer", [*GOOD, replace(ANSWERED, at=20, accepted_at=102)]),
    (
        3,
        "a message arrived that nobody sent",
        [*GOOD, replace(RECEIVED_2, at=20, pos=3, seq=3, body=b"three")],
    ),
    (
        3,
        "one send became two messages",
        [*GOOD, replace(RECEIVED_2, at=20, pos=3, seq=3, message_id=b"m3")],
    ),
    (3, "a message arrived that was refused for good", [*without(ANSWERED_2), REFUSED_2]),
    (3, "a send was accepted and refused for good", [*GOOD, REFUSED_2]),
    (4, "two messages got one seq", changed(ANSWERED_2, seq=1)),
    (4, "has no message at [1]", without(TRIED, ANSWERED, RECEIVED)),
    (4, "accept time went back", changed(ANSWERED_2, accepted_at=99)),
    (4, "a device's messages changed their order", changed(TRIED_2, number=0)),
    (4, "a message went before one that was accepted", changed(TRIED, at=9.5)),
    (4, "a stream's positions have a hole", changed(RECEIVED_2, pos=3)),
    (
        4,
        "first deliveries do not ascend",
        [
            *without(RECEIVED, RECEIVED_2),
            replace(RECEIVED_2, at=3, pos=1),
            replace(RECEIVED, at=10, pos=2),
        ],
    ),
    (5, "delivered was taken back", changed(DELIVERED_2, delivered=((2, 2),))),
    (5, "read was taken back", changed(DELIVERED_2, read_up_to=0)),
    (5, "delivered was said of seq 1 before it was stored", changed(DELIVERED, at=3.5)),
    (5, "read was said before it was so", changed(DELIVERED, read_up_to=1)),
    (5, "a sender never learnt of a delivery", without(DELIVERED_2)),
    (
        5,
        "a sender never learnt of a reading",
        [*without(READ_RECEIPT, DELIVERED_2), replace(DELIVERED_2, read_up_to=0)],
    ),
    (6, "CaughtUp came too early", changed(OPENED, head_pos=1)),
    (6, "CaughtUp never came on the last stream", without(CAUGHT_UP)),
    (6, "a live device waited 41.0 s for a message", changed(RECEIVED_2, at=50)),
    (9, "a refusal without a reason of ours", [*GOOD, replace(REFUSED_2, reason="INTERNAL")]),
    (9, "a send failed for good", [*GOOD, replace(REFUSED_2, client_id=b"x")]),
    (9, "a send was never answered", without(ANSWERED_2)),
    (10, "a message reached somebody else", changed(RECEIVED, who="eve")),
]


@pytest.mark.parametrize(("row", "what", "events"), BROKEN, ids=[what for _, what, _ in BROKEN])
def test_a_broken_history_is_told_for_what_it_is(row: int, what: str, events: list[Event]) -> None:
    found = check(events)

    assert any(one.row == row and what in one.what for one in found), found


@pytest.mark.parametrize(
    "awaited",
    [(RECEIVED_2,), (DELIVERED_2,), (READ_RECEIPT, DELIVERED_2)],
    ids=["a message", "a delivery", "a reading"],
)
def test_it_is_not_quiet_while_somebody_has_yet_to_learn_something(awaited: tuple[Event]) -> None:
    assert is_quiet(history_of(GOOD))
    assert not is_quiet(history_of(without(*awaited)))


def test_what_an_application_sees_twice_is_told() -> None:
    shown = replace(RECEIVED, pos=None)

    found = check([*without(RECEIVED, ACKED), shown, replace(shown, at=20)])

    assert [(one.row, one.evidence) for one in found if one.row == 2] == [
        (2, (shown, replace(shown, at=20)))
    ]


@pytest.mark.parametrize(
    "rest",
    [
        Rest({"bob": Queue(2, 2, 1)}),
        Rest({"bob": Queue(3, 2, 0)}),
        Rest({"bob": Queue(3, 3, 0)}),
        Rest({"bob": Queue(2, 2, 0)}, outbox_entries=1),
    ],
    ids=["a row stays", "not acked", "acked by nobody", "an entry stays"],
)
def test_what_stays_in_the_shards_is_told(rest: Rest) -> None:
    assert 6 in {violation.row for violation in check(GOOD, rest)}


def test_a_violation_names_the_events_that_prove_it() -> None:
    (violation,) = check([*GOOD, replace(ANSWERED, at=20, seq=1, message_id=b"other")])

    assert violation.evidence == (ANSWERED, replace(ANSWERED, at=20, message_id=b"other"))
    assert "row 3: a retry got another answer" in str(violation)
