"""Whatever is lost, doubled, late or out of order, a session keeps the queue's promises."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from svc_gateway.session import Session
from svc_gateway.sides import SessionLimits
from svc_gateway.window import MOST_BODY_BYTES, Budget
from tests.svc_gateway.recorder import NOW, Envelope, Receipt, Recorder

_MOST_UNACKED = 4
_MOST_BYTES = 4 * MOST_BODY_BYTES
_SIZES = st.sampled_from([1, 100, MOST_BODY_BYTES])


class SessionMachine(RuleBasedStateMachine):
    """A queue, a device that acks what it likes, and a service that answers when it likes."""

    @initialize(waiting=st.lists(_SIZES, max_size=12), receipts=st.integers(0, 5))
    def open(self, waiting: list[int], receipts: int) -> None:
        self.sizes = [0, *waiting]  # by pos; never shrinks
        self.acked_pos = 0  # durable
        self.expired_up_to = 0
        self.version = receipts
        self.port = Recorder()
        self.budget = Budget(8 * MOST_BODY_BYTES)
        limits = SessionLimits(max_unacked=_MOST_UNACKED, max_unacked_bytes=_MOST_BYTES)
        port, budget = self.port, self.budget
        self.session: Session[Envelope, Receipt] = Session(port, port, limits, budget)
        self.session.hello(max_unacked=0, after_receipts=0)
        self.port.take("open")
        self.head_at_open = self.head_pos
        self.session.opened(
            epoch=1,
            head_pos=self.head_pos,
            acked_pos=0,
            receipt_version=receipts,
            server_time=NOW,
        )
        self.pages: list[Any] = []
        self.acks: list[int] = []
        self.receipt_pages: list[Any] = []

    @property
    def head_pos(self) -> int:
        return len(self.sizes) - 1

    @property
    def delivered(self) -> list[int]:
        return self.port.heard("deliver")

    def envelope(self, pos: int) -> Envelope:
        return Envelope(pos, b"x" * self.sizes[pos])

    @rule(size=_SIZES, pushed=st.booleans())
    def arrive(self, size: int, pushed: bool) -> None:
        self.sizes.append(size)
        if pushed:
            self.session.push_delivery(self.envelope(self.head_pos))

    @precondition(lambda self: self.head_pos > 0)
    @rule(choice=st.data())
    def push_any(self, choice: st.DataObject) -> None:
        pos = choice.draw(st.integers(1, self.head_pos))
        self.session.push_delivery(self.envelope(pos))

    @rule()
    def compare_heads(self) -> None:
        self.session.head(
            head_pos=self.head_pos,
            acked_pos=self.acked_pos,
            epoch=1,
            receipt_version=self.version,
            linked=True,
        )

    @rule()
    def ring(self) -> None:
        self.session.doorbell(head_pos=self.head_pos, receipt_version=self.version)

    @precondition(lambda self: self.delivered)
    @rule(choice=st.data())
    def ack(self, choice: st.DataObject) -> None:
        self.session.ack(choice.draw(st.sampled_from(self.delivered)))

    @precondition(lambda self: self.port.has_asked("ack"))
    @rule()
    def take_ack(self) -> None:
        up_to_pos = self.port.take("ack")
        assert up_to_pos <= max(self.delivered)
        self.acked_pos = max(self.acked_pos, up_to_pos)
        self.acks.append(self.acked_pos)

    @precondition(lambda self: self.acks)
    @rule()
    def answer_ack(self) -> None:
        self.session.ack_recorded(self.acks.pop(0))

    @rule(choice=st.data())
    def expire(self, choice: st.DataObject) -> None:
        self.acked_pos = choice.draw(st.integers(self.acked_pos, self.head_pos))
        self.expired_up_to = self.acked_pos

    @precondition(lambda self: self.port.has_asked("page"))
    @rule()
    def take_page(self) -> None:
        after_pos, most, most_bytes = self.port.take("page")
        assert 1 <= most <= _MOST_UNACKED
        rows: list[Envelope] = []
        size, first = 0, max(after_pos, self.acked_pos) + 1
        for pos in range(first, self.head_pos + 1):
            if len(rows) == most or size >= most_bytes:
                break
            rows.append(self.envelope(pos))
            size += self.sizes[pos]
        cut = bool(rows) and rows[-1].pos < self.head_pos
        answer = {"head_pos": self.head_pos, "acked_pos": self.acked_pos, "cut": cut}
        self.pages.append((rows, answer))

    @precondition(lambda self: self.pages)
    @rule()
    def answer_page(self) -> None:
        rows, answer = self.pages.pop(0)
        self.session.page(rows, **answer)

    @rule(pushed=st.booleans())
    def change_receipt(self, pushed: bool) -> None:
        self.version += 1
        if pushed:
            self.session.push_receipt(Receipt(self.version))

    @precondition(lambda self: self.version > 0)
    @rule(choice=st.data())
    def push_any_receipt(self, choice: st.DataObject) -> None:
        self.session.push_receipt(Receipt(choice.draw(st.integers(1, self.version))))

    @precondition(lambda self: self.port.has_asked("receipts"))
    @rule()
    def take_receipts(self) -> None:
        after, _ = self.port.take("receipts")
        # As if every change were of another conversation but each second one replaced the last.
        rows = [Receipt(v) for v in range(after + 1, self.version + 1) if v % 2 == self.version % 2]
        self.receipt_pages.append((rows, self.version))

    @precondition(lambda self: self.receipt_pages)
    @rule()
    def answer_receipts(self) -> None:
        rows, version = self.receipt_pages.pop(0)
        self.session.receipts(rows, receipt_version=version)

    @rule()
    def tick(self) -> None:
        self.session._ticks = 0  # patience is not what is tested here
        self.session.tick()

    @invariant()
    def every_pos_is_written_once_and_in_order(self) -> None:
        delivered = self.delivered
        assert delivered == sorted(set(delivered))
        missing = set(range(1, max(delivered, default=0))) - set(delivered)
        assert all(pos <= self.expired_up_to for pos in missing)

    @invariant()
    def the_window_is_never_exceeded(self) -> None:
        unacked = [pos for pos in self.delivered if pos > self.acked_pos]
        assert len(unacked) <= _MOST_UNACKED
        assert sum(self.sizes[pos] for pos in unacked) <= _MOST_BYTES

    @invariant()
    def caught_up_comes_once_and_not_before_its_time(self) -> None:
        said = self.port.heard("caught_up")
        assert said in ([], [self.head_at_open])
        if said:
            assert self.acked_pos >= self.head_at_open

    @invariant()
    def receipts_ascend(self) -> None:
        versions = self.port.heard("receipt")
        assert versions == sorted(set(versions))

    @invariant()
    def nothing_ends_it(self) -> None:
        assert self.port.ended is None

    def teardown(self) -> None:
        """When everything heals, everything arrives."""
        if not hasattr(self, "session"):
            return
        for _ in range(10 * len(self.sizes) + 20):
            self.compare_heads()
            for is_due, step in (
                (self.port.has_asked("page"), self.take_page),
                (bool(self.pages), self.answer_page),
                (bool(self.delivered), self._ack_all),
                (self.port.has_asked("ack"), self.take_ack),
                (bool(self.acks), self.answer_ack),
                (self.port.has_asked("receipts"), self.take_receipts),
                (bool(self.receipt_pages), self.answer_receipts),
            ):
                if is_due:
                    step()
        assert self.session.is_live
        assert self.acked_pos == self.head_pos
        assert set(self.delivered) >= set(range(self.expired_up_to + 1, self.head_pos + 1))
        assert self.port.heard("caught_up") == [self.head_at_open]
        assert max(self.port.heard("receipt"), default=0) == self.version
        self.session.close()
        assert self.budget.used == 0

    def _ack_all(self) -> None:
        self.session.ack(self.delivered[-1])


def test_any_interleaving_keeps_the_promises() -> None:
    run_state_machine_as_test(
        SessionMachine, settings=settings(max_examples=150, stateful_step_count=60)
    )
