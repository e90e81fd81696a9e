"""The session's rules, one by one."""

from datetime import timedelta

import pytest

from svc_gateway.session import Phase
from svc_gateway.sides import Request
from svc_gateway.window import KIB, Budget, DeliveryWindow
from tests.svc_gateway.recorder import (
    NOW,
    Envelope,
    Receipt,
    Recorder,
    a_session,
    an_open_session,
    envelopes,
)


@pytest.fixture
def port() -> Recorder:
    return Recorder()


def reason(port: Recorder) -> str | None:
    return port.ended.reason if port.ended else None


# Opening.


def test_hello_asks_the_message_service_before_anything_is_said(port: Recorder) -> None:
    a_session(port).hello(max_unacked=0, after_receipts=0)

    assert port.asked == [("open", None)]
    assert port.said == []


def test_an_empty_queue_is_caught_up_at_once(port: Recorder) -> None:
    session = an_open_session(port, head_pos=7, acked_pos=7)

    assert port.said[-1] == ("caught_up", 7)
    assert session.is_live
    assert port.asked == []


def test_what_waits_is_read_by_a_page(port: Recorder) -> None:
    session = an_open_session(port, head_pos=3)
    after_pos, count, _ = port.take("page")

    session.page(envelopes(1, 3), head_pos=3, acked_pos=0, cut=False)

    assert (after_pos, count) == (0, 3)
    assert port.heard("deliver") == [1, 2, 3]
    assert session.is_live


def test_caught_up_waits_until_the_ack_of_all_that_waited_is_durable(port: Recorder) -> None:
    session = an_open_session(port, head_pos=2)
    session.page(envelopes(1, 2), head_pos=2, acked_pos=0, cut=False)
    session.ack(2)
    assert port.heard("caught_up") == []

    session.ack_recorded(2)

    assert port.heard("caught_up") == [2]


def test_caught_up_comes_when_what_waited_has_expired(port: Recorder) -> None:
    session = an_open_session(port, head_pos=2)

    session.page([], head_pos=2, acked_pos=2, cut=False)

    assert port.heard("caught_up") == [2]
    assert session.is_live


def test_a_refused_open_is_asked_again_after_the_time(port: Recorder) -> None:
    session = a_session(port)
    session.hello(max_unacked=0, after_receipts=0)
    port.take("open")
    session.refused(Request.OPEN, "SHARD_UNAVAILABLE", timedelta(seconds=2))

    session.tick()
    assert not port.has_asked("open")
    session.tick()

    assert port.has_asked("open")


def test_an_open_that_is_refused_for_good_ends_the_session(port: Recorder) -> None:
    session = a_session(port)
    session.hello(max_unacked=0, after_receipts=0)

    session.refused(Request.OPEN, "DEVICE_REVOKED", None)

    assert reason(port) == "DEVICE_REVOKED"


def test_an_open_that_is_never_answered_ends_the_session(port: Recorder) -> None:
    session = a_session(port, ticks_to_open=3)
    session.hello(max_unacked=0, after_receipts=0)

    for _ in range(6):
        session.tick()

    assert reason(port) == "UNAVAILABLE"


def test_a_session_that_was_ended_while_it_opened_does_not_open(port: Recorder) -> None:
    session = a_session(port)
    session.hello(max_unacked=0, after_receipts=0)
    session.end_below(5, "STREAM_REPLACED")

    session.opened(epoch=4, head_pos=0, acked_pos=0, receipt_version=0, server_time=NOW)

    assert reason(port) == "STREAM_REPLACED"
    assert port.said == []


def test_a_second_hello_breaks_the_protocol(port: Recorder) -> None:
    session = an_open_session(port)

    session.hello(max_unacked=0, after_receipts=0)

    assert reason(port) == "PROTOCOL_VIOLATION"


# Live envelopes.


def test_the_next_envelope_is_written_live(port: Recorder) -> None:
    session = an_open_session(port, head_pos=4, acked_pos=4)

    session.push_delivery(Envelope(5))

    assert port.heard("deliver") == [5]
    assert port.asked == []


def test_an_envelope_that_was_written_is_dropped(port: Recorder) -> None:
    session = an_open_session(port)
    session.push_delivery(Envelope(1))

    session.push_delivery(Envelope(1))

    assert port.heard("deliver") == [1]


def test_an_envelope_beyond_the_next_is_a_doorbell(port: Recorder) -> None:
    session = an_open_session(port)

    session.push_delivery(Envelope(3))

    assert port.heard("deliver") == []
    assert port.take("page")[:2] == (0, 3)


def test_a_live_envelope_overtakes_a_page_and_is_not_written_twice(port: Recorder) -> None:
    session = an_open_session(port, head_pos=3)
    session.push_delivery(Envelope(1))

    session.page(envelopes(1, 3), head_pos=3, acked_pos=0, cut=False)

    assert port.heard("deliver") == [1, 2, 3]


def test_a_doorbell_for_what_is_known_asks_nothing(port: Recorder) -> None:
    session = an_open_session(port, head_pos=2, acked_pos=2, receipt_version=2, after_receipts=2)

    session.doorbell(head_pos=2, receipt_version=2)

    assert port.asked == []


def test_one_page_is_in_flight_at_most(port: Recorder) -> None:
    session = an_open_session(port, head_pos=2)

    session.doorbell(head_pos=9)

    assert [kind for kind, _ in port.asked] == ["page"]


# The window.


def test_a_full_window_pauses_until_half_of_it_is_confirmed(port: Recorder) -> None:
    session = an_open_session(port, head_pos=20, max_unacked=4)
    port.take("page")
    session.page(envelopes(1, 4), head_pos=20, acked_pos=0, cut=True)
    session.push_delivery(Envelope(5))
    assert port.heard("deliver") == [1, 2, 3, 4]

    session.ack(1)
    session.ack_recorded(1)
    assert not port.has_asked("page")
    session.ack(2)
    session.ack_recorded(2)

    assert port.take("page")[:2] == (4, 2)


def test_an_ack_frees_the_window_only_when_it_is_durable(port: Recorder) -> None:
    session = an_open_session(port, max_unacked=1)
    session.push_delivery(Envelope(1))
    session.ack(1)

    session.push_delivery(Envelope(2))

    assert port.heard("deliver") == [1]


def test_the_window_counts_bytes_too(port: Recorder) -> None:
    session = an_open_session(port, max_unacked_bytes=1024 * KIB)

    for pos in range(1, 8):
        session.push_delivery(Envelope(pos, b"x" * 192 * KIB))

    assert port.heard("deliver") == [1, 2, 3, 4, 5]


def test_a_page_asks_for_no_more_bytes_than_the_window_has(port: Recorder) -> None:
    an_open_session(port, head_pos=300, max_unacked_bytes=1024 * KIB)

    _, count, size = port.take("page")

    assert count == 256
    assert size + 192 * KIB <= 1024 * KIB


def test_with_the_process_budget_spent_one_delivery_at_a_time_goes_through(
    port: Recorder,
) -> None:
    session = an_open_session(port, budget=1)
    session.push_delivery(Envelope(1, b"xx"))
    session.push_delivery(Envelope(2, b"xx"))
    assert port.heard("deliver") == [1]

    session.ack(1)
    session.ack_recorded(1)

    assert port.take("page")[1:] == (1, 1)


def test_a_session_that_closes_gives_its_bytes_back_to_the_budget(port: Recorder) -> None:
    session = an_open_session(port, budget=10)
    session.push_delivery(Envelope(1, b"x" * 10))

    session.close()

    assert session._window._budget.used == 0


def test_a_session_with_nothing_unacked_comes_forward_although_others_spent_the_budget(
    port: Recorder,
) -> None:
    budget = Budget(10)
    DeliveryWindow(most=9, most_bytes=9, budget=budget).deliver(1, 10)
    session = a_session(port, shared=budget)
    session.hello(max_unacked=0, after_receipts=0)

    session.opened(epoch=1, head_pos=5, acked_pos=0, receipt_version=0, server_time=NOW)

    assert port.take("page")[1:] == (1, 1)


def test_a_page_that_lost_its_room_leaves_nothing_out(port: Recorder) -> None:
    session = an_open_session(port, head_pos=3, max_unacked_bytes=10)
    session.push_delivery(Envelope(1, b"x" * 4))

    page = [Envelope(1, b"x" * 4), Envelope(2, b"x" * 9), Envelope(3, b"x")]
    session.page(page, head_pos=3, acked_pos=0, cut=False)

    assert port.heard("deliver") == [1]
    assert not session.is_live


# Acks.


def test_caught_up_does_not_come_on_the_word_of_the_device(port: Recorder) -> None:
    session = an_open_session(port, head_pos=2)
    session.page(envelopes(1, 2), head_pos=2, acked_pos=0, cut=False)
    session.ack(1)
    session.ack(2)

    session.ack_recorded(1)

    assert port.heard("caught_up") == []


def test_acks_that_come_while_one_is_in_flight_become_one(port: Recorder) -> None:
    session = an_open_session(port)
    for pos in range(1, 5):
        session.push_delivery(Envelope(pos))
        session.ack(pos)
    assert port.take("ack") == 1
    assert not port.has_asked("ack")

    session.ack_recorded(1)

    assert port.take("ack") == 4


def test_an_ack_above_what_was_delivered_breaks_the_protocol(port: Recorder) -> None:
    session = an_open_session(port, head_pos=5)
    session.page(envelopes(1, 2), head_pos=5, acked_pos=0, cut=True)

    session.ack(3)

    assert reason(port) == "PROTOCOL_VIOLATION"
    assert not port.has_asked("ack")


def test_a_repeated_ack_is_ignored(port: Recorder) -> None:
    session = an_open_session(port)
    session.push_delivery(Envelope(1))
    session.ack(1)
    port.take("ack")

    assert session.ack(1) is False
    assert port.asked == []


def test_a_refused_ack_is_asked_again(port: Recorder) -> None:
    session = an_open_session(port)
    session.push_delivery(Envelope(1))
    session.ack(1)
    port.take("ack")
    session.refused(Request.ACK, "SHARD_UNAVAILABLE", timedelta(seconds=1))

    session.tick()

    assert port.take("ack") == 1


# Receipts.


def test_the_next_receipt_is_written_live_and_a_later_one_is_read(port: Recorder) -> None:
    session = an_open_session(port, receipt_version=4, after_receipts=4)
    session.push_receipt(Receipt(5))
    session.push_receipt(Receipt(8))

    assert port.heard("receipt") == [5]
    assert port.take("receipts")[0] == 5


def test_a_page_of_receipts_may_have_gaps(port: Recorder) -> None:
    session = an_open_session(port, receipt_version=9)
    port.take("receipts")

    session.receipts([Receipt(3), Receipt(8)], receipt_version=9)

    assert port.heard("receipt") == [3, 8]
    session.push_receipt(Receipt(10))
    assert port.heard("receipt") == [3, 8, 10]


def test_a_full_page_of_receipts_is_followed_by_another(port: Recorder) -> None:
    session = an_open_session(port, receipt_version=900)
    port.take("receipts")

    session.receipts([Receipt(v) for v in range(1, 501)], receipt_version=900)

    assert port.take("receipts")[0] == 500


def test_receipts_wait_in_the_store_while_there_is_no_room(port: Recorder) -> None:
    session = an_open_session(port)
    port.roomy = False
    session.push_receipt(Receipt(1))
    assert port.heard("receipt") == []
    assert port.asked == []

    port.roomy = True
    session.room()

    assert port.take("receipts")[0] == 0


def test_a_cursor_above_every_receipt_does_not_silence_later_ones(port: Recorder) -> None:
    session = an_open_session(port, receipt_version=4, after_receipts=1000)

    session.push_receipt(Receipt(5))

    assert port.heard("receipt") == [5]


# Ends.


def test_a_greater_epoch_among_the_heads_replaces_the_session(port: Recorder) -> None:
    session = an_open_session(port, epoch=3)

    session.head(head_pos=0, acked_pos=0, epoch=4, receipt_version=0, linked=True)

    assert reason(port) == "STREAM_REPLACED"


def test_a_device_that_is_not_linked_any_more_is_revoked(port: Recorder) -> None:
    session = an_open_session(port)

    session.head(head_pos=0, acked_pos=0, epoch=1, receipt_version=0, linked=False)

    assert reason(port) == "DEVICE_REVOKED"


def test_heads_make_good_for_a_lost_push(port: Recorder) -> None:
    session = an_open_session(port)

    session.head(head_pos=2, acked_pos=0, epoch=1, receipt_version=1, linked=True)

    assert port.has_asked("page")
    assert port.has_asked("receipts")


def test_an_end_below_its_own_epoch_is_not_for_this_session(port: Recorder) -> None:
    session = an_open_session(port, epoch=5)

    session.end_below(5, "STREAM_REPLACED")

    assert port.ended is None


def test_thirty_seconds_without_an_ack_end_the_session(port: Recorder) -> None:
    session = an_open_session(port)
    session.push_delivery(Envelope(1))
    for _ in range(29):
        assert session.tick()
    assert port.ended is None

    session.tick()

    assert reason(port) == "SLOW_CONSUMER"


def test_an_ack_that_moves_on_buys_time(port: Recorder) -> None:
    session = an_open_session(port)
    session.push_delivery(Envelope(1))
    session.push_delivery(Envelope(2))
    for _ in range(29):
        session.tick()
    session.ack(1)

    for _ in range(29):
        session.tick()

    assert port.ended is None


def test_a_device_that_has_acked_is_not_slow_when_the_service_is(port: Recorder) -> None:
    session = an_open_session(port)
    session.push_delivery(Envelope(1))
    session.ack(1)

    for _ in range(100):
        session.tick()

    assert port.ended is None


def test_an_idle_session_asks_for_no_ticks(port: Recorder) -> None:
    session = an_open_session(port)

    assert session.tick() is False


# Being taken down.


def test_a_retiring_session_ends_when_its_sends_are_answered(port: Recorder) -> None:
    session = an_open_session(port)
    session.sends.take(10)
    session.retire()
    assert port.ended is None

    session.send_answered(10)

    assert reason(port) == "SERVER_DRAINING"


def test_a_retiring_session_ends_when_its_ack_is_durable(port: Recorder) -> None:
    session = an_open_session(port)
    session.push_delivery(Envelope(1))
    session.ack(1)
    session.retire()
    assert port.ended is None

    session.ack_recorded(1)

    assert reason(port) == "SERVER_DRAINING"


def test_a_retiring_session_writes_nothing_new(port: Recorder) -> None:
    session = an_open_session(port)
    session.sends.take(10)
    session.retire()

    session.push_delivery(Envelope(1))

    assert session.phase is Phase.RETIRING
    assert port.heard("deliver") == []


def test_a_retiring_session_does_not_wait_for_ever(port: Recorder) -> None:
    session = an_open_session(port, ticks_to_retire=3)
    session.sends.take(10)
    session.retire()

    for _ in range(3):
        session.tick()

    assert reason(port) == "SERVER_DRAINING"


def test_a_session_that_moves_ends_when_its_sends_are_answered(port: Recorder) -> None:
    session = an_open_session(port)
    session.sends.take(10)
    session.move()
    assert port.ended is None

    session.send_answered(10)

    assert reason(port) == "OVERLOADED"
    assert session.is_moved


def test_a_session_on_its_way_out_does_not_move(port: Recorder) -> None:
    session = an_open_session(port)
    session.sends.take(10)
    session.retire()
    session.move()

    session.send_answered(10)

    assert reason(port) == "SERVER_DRAINING"
    assert not session.is_moved
