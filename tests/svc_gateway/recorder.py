"""Both sides of a session, which write down what was asked of it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from svc_gateway.ends import SessionEnd
from svc_gateway.session import Session
from svc_gateway.sides import SessionLimits
from svc_gateway.window import KIB, Budget

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Envelope:
    pos: int
    ciphertext: bytes = b"x"


@dataclass(frozen=True)
class Receipt:
    version: int


@dataclass
class Recorder:
    """What the session has said to the device, and what it has asked and not heard of."""

    said: list[tuple[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    ended: SessionEnd | None = None
    watched: bool = False
    roomy: bool = True

    def welcome(self, **facts: Any) -> None:
        self.said.append(("welcome", facts))

    def deliver(self, envelope: Envelope) -> None:
        self.said.append(("deliver", envelope.pos))

    def caught_up(self, pos: int) -> None:
        self.said.append(("caught_up", pos))

    def receipt(self, receipt: Receipt) -> None:
        self.said.append(("receipt", receipt.version))

    def end(self, end: SessionEnd) -> None:
        assert self.ended is None
        self.ended = end

    def open(self) -> None:
        self.asked.append(("open", None))

    def ack(self, up_to_pos: int) -> None:
        self.asked.append(("ack", up_to_pos))

    def fetch_page(self, after_pos: int, *, max_envelopes: int, max_bytes: int) -> None:
        self.asked.append(("page", (after_pos, max_envelopes, max_bytes)))

    def fetch_receipts(self, after_version: int, *, max_receipts: int) -> None:
        self.asked.append(("receipts", (after_version, max_receipts)))

    def watch(self) -> None:
        self.watched = True

    def has_room(self) -> bool:
        return self.roomy

    def heard(self, kind: str) -> list[Any]:
        return [what for said, what in self.said if said == kind]

    def take(self, kind: str) -> Any:
        """The oldest request of a kind, which from now on counts as answered."""
        for number, (asked, what) in enumerate(self.asked):
            if asked == kind:
                del self.asked[number]
                return what
        raise AssertionError(f"no {kind} was asked")

    def has_asked(self, kind: str) -> bool:
        return any(asked == kind for asked, _ in self.asked)


def a_session(
    recorder: Recorder,
    *,
    budget: int = 1024 * KIB * KIB,
    shared: Budget | None = None,
    **limits: int,
) -> Session[Envelope, Receipt]:
    return Session(recorder, recorder, SessionLimits(**limits), shared or Budget(budget))


def an_open_session(
    recorder: Recorder,
    *,
    head_pos: int = 0,
    acked_pos: int = 0,
    receipt_version: int = 0,
    after_receipts: int = 0,
    epoch: int = 1,
    max_unacked: int = 0,
    **limits: int,
) -> Session[Envelope, Receipt]:
    session = a_session(recorder, **limits)
    session.hello(max_unacked=max_unacked, after_receipts=after_receipts)
    recorder.take("open")
    session.opened(
        epoch=epoch,
        head_pos=head_pos,
        acked_pos=acked_pos,
        receipt_version=receipt_version,
        server_time=NOW,
    )
    return session


def envelopes(first: int, last: int, size: int = 1) -> list[Envelope]:
    return [Envelope(pos, b"x" * size) for pos in range(first, last + 1)]
