"""What a session asks of the world around it, and what it reads of what passes through."""

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from svc_gateway.ends import SessionEnd
from svc_gateway.window import KIB


class Envelope(Protocol):
    """What the session reads of a message."""

    @property
    def pos(self) -> int: ...
    @property
    def ciphertext(self) -> bytes: ...


class Receipt(Protocol):
    """What the session reads of a receipt."""

    @property
    def version(self) -> int: ...


E = TypeVar("E", bound=Envelope)
R = TypeVar("R", bound=Receipt)
E_contra = TypeVar("E_contra", bound=Envelope, contravariant=True)
R_contra = TypeVar("R_contra", bound=Receipt, contravariant=True)


class DeviceSide(Protocol[E_contra, R_contra]):
    """What a session wants of its device; nothing here waits."""

    def welcome(
        self, *, epoch: int, head_pos: int, max_unacked: int, server_time: datetime
    ) -> None: ...
    def deliver(self, envelope: E_contra) -> None: ...
    def caught_up(self, pos: int) -> None: ...
    def receipt(self, receipt: R_contra) -> None: ...
    def end(self, end: SessionEnd) -> None: ...

    def watch(self) -> None:
        """Call `tick` each second, until it returns False."""

    def has_room(self) -> bool:
        """Whether more receipts may be written now; if not, `room` is called when they may."""


class ServiceSide(Protocol):
    """What a session asks of the message service; nothing waits, and each is answered once."""

    def open(self) -> None: ...
    def ack(self, up_to_pos: int) -> None: ...
    def fetch_page(self, after_pos: int, *, max_envelopes: int, max_bytes: int) -> None: ...
    def fetch_receipts(self, after_version: int, *, max_receipts: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """What one session may use; times are in ticks of a second."""

    max_unacked: int = 256
    max_unacked_bytes: int = 1024 * KIB
    max_outstanding_sends: int = 500
    max_outstanding_bytes: int = 1024 * KIB
    ticks_without_ack: int = 30
    ticks_to_open: int = 10
    ticks_to_retire: int = 5


class Request(enum.Enum):
    """What a session asks of the message service; one of each kind is in flight at most."""

    OPEN = enum.auto()
    ACK = enum.auto()
    PAGE = enum.auto()
    RECEIPTS = enum.auto()
