"""The outgoing queue, without a stream: order, windows, repeats, giving up."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from whimbrel_client.clock import days_ms
from whimbrel_client.sync import Outbox, Sending, SendLimits, Turn

LIMITS = SendLimits(sends=5, bytes=2000)
BOB, CAROL = b"b" * 16, b"c" * 16
NOW_MS = days_ms(20_000)


def a_send(local_id: int, *, to: bytes = BOB, size: int = 10) -> Sending:
    return Sending(local_id, to, local_id.to_bytes(16, "big"), b"x" * size)


def an_outbox(*sends: Sending, lane_size: int = 100) -> Outbox:
    outbox = Outbox(lane_size=lane_size)
    outbox.offer(sends)
    return outbox


def take(outbox: Outbox, *, now: float = 0.0, limits: SendLimits = LIMITS) -> list[int]:
    turn = take_turn(outbox, now=now, limits=limits)
    return [sending.local_id for sending in turn.sends]


def unsealed(outbox: Outbox) -> list[int]:
    return [sending.local_id for sending in outbox.unsealed(100, lacking=())]


def take_turn(
    outbox: Outbox, *, now: float = 0.0, now_ms: int = NOW_MS, limits: SendLimits = LIMITS
) -> Turn:
    turn = outbox.take(now=now, server_now_ms=now_ms, limits=limits)
    for sending in turn.sends:
        if sending.first_tried_at is None:
            sending.first_tried_at = now_ms
    return turn


def test_after_names_the_nearest_earlier_send_that_is_not_settled() -> None:
    first, second, third = a_send(1), a_send(2), a_send(3)
    outbox = an_outbox(first, second, third)

    before = (first.after, second.after, third.after)
    outbox.settle(second.client_message_id)

    assert before == (b"", first.client_message_id, second.client_message_id)
    assert third.after == first.client_message_id


def test_sends_to_other_people_are_not_named() -> None:
    to_bob, to_carol = a_send(1), a_send(2, to=CAROL)

    an_outbox(to_bob, to_carol)

    assert to_carol.after == b""


def test_no_more_sends_go_out_than_may_be_outstanding() -> None:
    outbox = an_outbox(*map(a_send, range(1, 9)))

    first = take(outbox)
    nothing = take(outbox)
    outbox.settle(a_send(1).client_message_id)
    next_one = take(outbox)

    assert (first, nothing, next_one) == ([1, 2, 3, 4, 5], [], [6])


def test_no_more_bytes_go_out_than_may_be_outstanding() -> None:
    outbox = an_outbox(*(a_send(number, size=900) for number in range(1, 5)))

    assert take(outbox) == [1, 2]


def test_a_send_that_is_larger_than_the_window_goes_out_alone() -> None:
    outbox = an_outbox(a_send(1, size=5000), a_send(2))

    assert take(outbox) == [1]


def test_nothing_overtakes_a_send_that_was_refused_for_now() -> None:
    sends = [a_send(number) for number in range(1, 7)]
    outbox = an_outbox(*sends)
    take(outbox, limits=SendLimits(sends=4, bytes=10_000))

    for sending in sends[:4]:
        outbox.refuse_for_now(sending.client_message_id, 10.0)
    early = take(outbox, now=9.0, limits=SendLimits())
    retry_at = outbox.next_retry_at()
    due = take(outbox, now=10.0, limits=SendLimits())

    assert early == []
    assert retry_at == 10.0
    assert due == [1, 2, 3, 4, 5, 6]


def test_what_is_behind_a_send_that_must_be_sealed_anew_is_sealed_anew_in_order() -> None:
    sends = [a_send(number) for number in range(1, 7)]
    outbox = an_outbox(*sends[:4], a_send(9, to=CAROL))
    take(outbox)

    outbox.unseal(sends[0].client_message_id, 0.0)
    outbox.offer([Sending(5, BOB, (5).to_bytes(16, "big"))])
    while_some_are_on_their_way = unsealed(outbox)
    for sending in sends[1:3]:
        outbox.refuse_for_now(sending.client_message_id, 0.0)
    outbox.settle(sends[3].client_message_id)  # a twin of it had been accepted

    assert while_some_are_on_their_way == []
    assert unsealed(outbox) == [1, 2, 3, 5]


def test_what_waits_sealed_behind_it_is_sealed_anew_too() -> None:
    sends = [a_send(number) for number in range(1, 8)]
    outbox = an_outbox(*sends)

    first_five = take(outbox)
    for sending in sends[1:5]:
        outbox.refuse_for_now(sending.client_message_id, 0.0)
    outbox.unseal(sends[0].client_message_id, 0.0)

    assert first_five == [1, 2, 3, 4, 5]
    assert unsealed(outbox) == [1, 2, 3, 4, 5, 6, 7]
    assert take(outbox) == []


def test_what_is_in_doubt_when_the_stream_ends_is_sealed_anew() -> None:
    sends = [a_send(1), a_send(2)]
    outbox = an_outbox(*sends)
    take(outbox)

    outbox.unseal(sends[0].client_message_id, 0.0)
    outbox.stream_ended()

    assert unsealed(outbox) == [1, 2]


def test_a_conversation_that_waits_does_not_hold_up_another() -> None:
    outbox = an_outbox(a_send(1), a_send(2, to=CAROL))
    take(outbox)

    outbox.refuse_for_now(a_send(1).client_message_id, 10.0)
    outbox.offer([a_send(3), a_send(4, to=CAROL)])

    assert take(outbox, now=1.0) == [4]


def test_what_was_in_flight_when_the_stream_ended_is_repeated_first() -> None:
    outbox = an_outbox(*map(a_send, range(1, 7)))
    take(outbox, limits=SendLimits(sends=3, bytes=10_000))

    outbox.stream_ended()

    assert take(outbox, limits=SendLimits()) == [1, 2, 3, 4, 5, 6]


def test_a_tried_send_that_is_older_than_six_days_is_given_up() -> None:
    old, fresh = a_send(1), a_send(2)
    outbox = an_outbox(old, fresh)
    old.first_tried_at = NOW_MS - days_ms(6) - 1

    turn = take_turn(outbox)

    assert turn.given_up == [old]
    assert turn.sends == [fresh]
    assert fresh.after == b""


def test_a_send_of_exactly_six_days_and_one_never_tried_are_not_given_up() -> None:
    old, fresh = a_send(1), a_send(2)
    outbox = an_outbox(old, fresh)
    old.first_tried_at = NOW_MS - days_ms(6)

    turn = take_turn(outbox)

    assert turn.sends == [old, fresh]


def test_when_all_that_was_loaded_is_given_up_the_rest_is_still_wanted() -> None:
    sends = [a_send(number) for number in (1, 2, 3)]
    outbox = an_outbox(*sends, lane_size=2)
    for sending in sends[:2]:
        sending.first_tried_at = 0

    given_up = take_turn(outbox).given_up
    (wanted,) = outbox.wanting()
    outbox.load(wanted, [sends[2]])

    assert given_up == sends[:2]
    assert wanted.above_id == 2
    assert take(outbox) == [3]
    assert outbox.wanting() == []


class Conversations(RuleBasedStateMachine):
    """A store, an outbox, and a mesh that refuses, forgets to answer and loses streams.

    Whatever happens, the mesh accepts each conversation's sends in the order of queueing, once,
    and in the end all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Sending] = []  # what a store would hold
        self.settled: set[bytes] = set()
        self.accepted: dict[bytes, list[int]] = {BOB: [], CAROL: []}
        self.on_the_wire: list[tuple[bytes, bytes, int, bytes]] = []
        self.answers: list[tuple[str, bytes]] = []
        self.tried_at: dict[bytes, int] = {}
        self.now = 0.0
        self.outbox = Outbox(lane_size=8)

    @rule(to=st.sampled_from([BOB, CAROL]), count=st.integers(1, 6))
    def queue_some(self, to: bytes, count: int) -> None:
        sends = [a_send(len(self.queue) + number, to=to) for number in range(1, count + 1)]
        self.queue.extend(sends)
        self.outbox.offer(sends)

    @rule()
    def write(self) -> None:
        for wanted in self.outbox.wanting():
            stored = [
                sending
                for sending in self.queue
                if sending.conversation == wanted.conversation
                and wanted.above_id < sending.local_id <= wanted.up_to_id
                and sending.client_message_id not in self.settled
            ]
            self.outbox.load(wanted, stored[: wanted.limit])
        for sending in take_turn(self.outbox, now=self.now).sends:
            key = sending.client_message_id
            assert self.tried_at.setdefault(key, sending.first_tried_at) == sending.first_tried_at
            self.on_the_wire.append((key, sending.conversation, sending.local_id, sending.after))
        assert len(self.on_the_wire) + len(self.answers) <= LIMITS.sends

    @precondition(lambda self: self.on_the_wire)
    @rule(is_refused=st.booleans())
    def serve(self, is_refused: bool) -> None:
        key, conversation, local_id, after = self.on_the_wire.pop(0)
        accepted = self.accepted[conversation]
        if local_id in accepted:
            self.answers.append(("accepted", key))
        elif is_refused or (after and int.from_bytes(after, "big") not in accepted):
            self.answers.append(("refused", key))
        else:
            accepted.append(local_id)
            self.answers.append(("accepted", key))

    @precondition(lambda self: self.answers)
    @rule(index=st.integers(0, 100), delay=st.sampled_from([0.0, 1.0, 3.0]))
    def answer(self, index: int, delay: float) -> None:
        kind, key = self.answers.pop(index % len(self.answers))
        if kind == "accepted":
            self.outbox.settle(key)
            self.settled.add(key)
        else:
            self.outbox.refuse_for_now(key, self.now + delay)

    @rule()
    def lose_the_stream(self) -> None:
        self.on_the_wire.clear()
        self.answers.clear()
        self.outbox.stream_ended()

    @rule()
    def lose_the_answers_only(self) -> None:
        while self.on_the_wire:
            self.serve(is_refused=False)
        self.lose_the_stream()

    @rule()
    def restart(self) -> None:
        self.lose_the_stream()
        self.outbox = Outbox(lane_size=8)
        for sending in self.queue:
            if sending.client_message_id not in self.settled:
                sending.before = sending.behind = None
                sending.is_in_flight, sending.retry_at = False, 0.0
                self.outbox.queued(sending.conversation, sending.local_id)

    @rule(seconds=st.sampled_from([1.0, 5.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_order_holds(self) -> None:
        for conversation, accepted in self.accepted.items():
            queued = [s.local_id for s in self.queue if s.conversation == conversation]
            assert accepted == queued[: len(accepted)]

    def teardown(self) -> None:
        for _ in range(4 * len(self.queue) + 20):
            self.let_time_pass(5.0)
            self.write()
            while self.on_the_wire:
                self.serve(is_refused=False)
            while self.answers:
                self.answer(0, 0.0)
        assert sum(map(len, self.accepted.values())) == len(self.queue)
        assert len(self.outbox) == 0


Conversations.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestConversations = Conversations.TestCase
