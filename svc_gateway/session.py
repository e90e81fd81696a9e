"""The state of one device's session, without input or output: it is told, and it asks.

What comes from the device, the message service and the clock are calls; what it wants done are
calls of its two sides, none of which waits. It knows positions, versions and the window, and no
stream and no protobuf. Envelopes and receipts pass through it as they are.

The queue: `last_pos` was written to the device, `known_head` is the furthest that was heard of. A
live envelope that is the next one is written, an older one is dropped, and anything else raises
`known_head`; while `last_pos` is below it, the session reads pages. Receipts follow the same rule
by version. So a push that is lost, doubled or late changes nothing but the delay.
"""

import enum
from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Generic

from svc_gateway import ends
from svc_gateway.ends import SessionEnd
from svc_gateway.sides import DeviceSide, E, R, Request, ServiceSide, SessionLimits
from svc_gateway.window import Budget, DeliveryWindow, SendWindow

MOST_RECEIPTS_A_PAGE = 500


class Phase(enum.Enum):
    """Where a session is in its life."""

    HELLO = enum.auto()  # nothing was said yet
    OPENING = enum.auto()  # the message service is asked
    OPEN = enum.auto()
    RETIRING = enum.auto()  # the device is sent elsewhere: what is in flight is finished
    ENDED = enum.auto()


class Session(Generic[E, R]):
    """One device's session, from `hello` to its end."""

    __slots__ = (
        "_ack_asked",
        "_acked_pos",
        "_delivered_pos",
        "_device",
        "_end_below",
        "_head_at_open",
        "_known_head",
        "_known_version",
        "_last_pos",
        "_last_version",
        "_limits",
        "_open_asked",
        "_page_asked",
        "_pause",
        "_receipts_asked",
        "_service",
        "_stored_pos",
        "_ticks",
        "_watched",
        "_window",
        "epoch",
        "is_moved",
        "phase",
        "sends",
    )

    def __init__(
        self,
        device: DeviceSide[E, R],
        service: ServiceSide,
        limits: SessionLimits,
        budget: Budget,
    ) -> None:
        self._device = device
        self._service = service
        self._limits = limits
        self.phase = Phase.HELLO
        self.epoch = 0
        self.sends = SendWindow(
            most=limits.max_outstanding_sends, most_bytes=limits.max_outstanding_bytes
        )
        self._window = DeliveryWindow(
            most=limits.max_unacked, most_bytes=limits.max_unacked_bytes, budget=budget
        )
        # The queue: passed to the device or gone before; written; heard of.
        self._last_pos = self._delivered_pos = self._known_head = 0
        self._stored_pos = self._acked_pos = 0  # acked by the device; durably so
        self._head_at_open: int | None = None  # None again once `caught_up` was said
        self._last_version = self._known_version = 0
        # One request of a kind is in flight at most: the next one takes what came meanwhile.
        self._open_asked = self._ack_asked = self._page_asked = self._receipts_asked = False
        self._end_below: tuple[int, str] | None = None
        self._ticks = 0  # since the device, or while opening the message service, last did its part
        self._pause = 0  # ticks until the message service is asked again
        self._watched = False
        self.is_moved = False  # sent to another instance, while this one goes on

    # What the device says.

    def hello(self, *, max_unacked: int, after_receipts: int) -> None:
        if self.phase is not Phase.HELLO:
            self.violate("a second hello")
            return
        if max_unacked:
            self._window.narrow(max_unacked)
        self._last_version = after_receipts
        self.phase = Phase.OPENING
        self._watch()
        self._advance()

    def violate(self, message: str) -> None:
        """The device broke the protocol."""
        self.end(ends.ProtocolViolation(message))

    def ack(self, up_to_pos: int) -> bool:
        """Take an ack; False if it says nothing new."""
        if up_to_pos > self._last_pos:
            self.violate("an ack above the last delivered pos")
            return True
        if up_to_pos <= self._stored_pos:
            return False
        self._stored_pos = up_to_pos
        self._ticks = 0
        self._advance()
        return True

    # What the message service answers.

    def opened(
        self,
        *,
        epoch: int,
        head_pos: int,
        acked_pos: int,
        receipt_version: int,
        server_time: datetime,
    ) -> None:
        if self.phase is not Phase.OPENING:
            return
        self.epoch = epoch
        if self._end_below is not None and epoch < self._end_below[0]:
            self.end(ends.end_for(self._end_below[1]))
            return
        self.phase = Phase.OPEN
        self._last_pos = self._acked_pos = self._stored_pos = acked_pos
        self._known_head = self._head_at_open = head_pos
        # A cursor from before a restored backup would silence every receipt until it is passed.
        self._last_version = min(self._last_version, receipt_version)
        self._known_version = receipt_version
        self._device.welcome(
            epoch=epoch,
            head_pos=head_pos,
            max_unacked=self._window.most,
            server_time=server_time,
        )
        self._say_caught_up()
        self._advance()

    def ack_recorded(self, acked_pos: int) -> None:
        self._ack_asked = False
        self._confirm(acked_pos)
        self._advance()

    def page(self, envelopes: Sequence[E], *, head_pos: int, acked_pos: int, cut: bool) -> None:
        self._page_asked = False
        if self.phase is not Phase.OPEN:
            return
        self._confirm(acked_pos)
        self._known_head = max(self._known_head, head_pos)
        for envelope in envelopes:
            pos = envelope.pos
            if pos > self._last_pos and not self._deliver(pos, envelope):
                break  # a live one took its room: it comes with the next page
        else:
            # What is not in a whole page has expired.
            if not cut:
                self._last_pos = max(self._last_pos, head_pos)
        self._advance()

    def receipts(self, receipts: Sequence[R], *, receipt_version: int) -> None:
        self._receipts_asked = False
        if self.phase is not Phase.OPEN:
            return
        self._known_version = max(self._known_version, receipt_version)
        for receipt in receipts:
            if receipt.version > self._last_version:
                self._last_version = receipt.version
                self._device.receipt(receipt)
        if len(receipts) < MOST_RECEIPTS_A_PAGE:
            self._last_version = max(self._last_version, receipt_version)
        self._advance()

    def refused(self, request: Request, reason: str, retry_after: timedelta | None) -> None:
        """A request other than a send was not served."""
        self._not_asked(request)
        if retry_after is None:
            self.end(ends.end_for(reason))
            return
        if self.phase is Phase.OPENING and self._ticks >= self._limits.ticks_to_open:
            self.end(ends.end_for(reason))
            return
        self._pause = max(1, ceil(retry_after.total_seconds()))
        self._watch()

    # What the message service pushes: hints, all of them.

    def push_delivery(self, envelope: E) -> None:
        if self.phase is not Phase.OPEN:
            return
        pos = envelope.pos
        if pos == self._last_pos + 1 and self._deliver(pos, envelope):
            self._known_head = max(self._known_head, pos)
            return
        self.doorbell(head_pos=pos)

    def push_receipt(self, receipt: R) -> None:
        if self.phase is not Phase.OPEN:
            return
        version = receipt.version
        if version == self._last_version + 1 and self._device.has_room():
            self._last_version = version
            self._known_version = max(self._known_version, version)
            self._device.receipt(receipt)
            return
        self.doorbell(receipt_version=version)

    def doorbell(self, *, head_pos: int = 0, receipt_version: int = 0) -> None:
        if head_pos > self._known_head or receipt_version > self._known_version:
            self._known_head = max(self._known_head, head_pos)
            self._known_version = max(self._known_version, receipt_version)
            self._advance()

    def end_below(self, epoch: int, reason: str) -> None:
        """Sessions with a lower epoch end."""
        if self.phase in (Phase.HELLO, Phase.OPENING):
            self._end_below = max(self._end_below or (0, ""), (epoch, reason))
        elif self.epoch < epoch:
            self.end(ends.end_for(reason))

    def head(
        self, *, head_pos: int, acked_pos: int, epoch: int, receipt_version: int, linked: bool
    ) -> None:
        """Take where the queue stands, by the comparison of heads."""
        if self.phase not in (Phase.OPEN, Phase.RETIRING):
            return
        if not linked:
            self.end(ends.end_for("DEVICE_REVOKED"))
        elif epoch > self.epoch:
            self.end(ends.StreamReplaced("a newer stream of the device took over"))
        else:
            self._known_head = max(self._known_head, head_pos)
            self._known_version = max(self._known_version, receipt_version)
            self._confirm(acked_pos)
            self._advance()

    # What the clock and the process say.

    def tick(self) -> bool:
        """A second has passed; False when there is nothing to watch any more."""
        self._ticks += 1
        if self._pause:
            self._pause -= 1
            self._advance()
        if self.phase is Phase.OPENING:
            self._check_opening()
        elif self.phase is Phase.RETIRING:
            self._check_retiring()
        elif self._waits_for_device and self._ticks >= self._limits.ticks_without_ack:
            self.end(ends.SlowConsumer("nothing was acknowledged"))
        self._watched = self._is_busy
        return self._watched

    def retire(self) -> None:
        """The instance is being taken down: finish what is in flight, then end."""
        if self.phase in (Phase.HELLO, Phase.OPENING):
            self.end(_taken_down())
        elif self.phase is Phase.OPEN:
            self._retire()

    def move(self) -> None:
        """Another instance is to have the device: finish what is in flight, then end."""
        if self.phase is Phase.OPEN:
            self.is_moved = True
            self._retire()

    def send_answered(self, size: int) -> None:
        """A send of `size` bytes has its answer."""
        self.sends.answered(size)
        if self.phase is Phase.RETIRING:
            self._check_retiring()

    def end(self, end: SessionEnd) -> None:
        """End the session, unless it has ended."""
        if self.phase is not Phase.ENDED:
            self.phase = Phase.ENDED
            self._device.end(end)

    def close(self) -> None:
        """The stream is over, whoever ended it."""
        self.phase = Phase.ENDED
        self._window.close()

    def room(self) -> None:
        """There is room again for what was refused for want of it."""
        self._advance()

    @property
    def is_opening(self) -> bool:
        return self.phase is Phase.OPENING

    @property
    def is_ended(self) -> bool:
        return self.phase is Phase.ENDED

    @property
    def is_live(self) -> bool:
        """Whether everything that is known of is written."""
        return self.phase is Phase.OPEN and self._last_pos >= self._known_head

    def _deliver(self, pos: int, envelope: E) -> bool:
        size = len(envelope.ciphertext)
        if not self._window.has_room(size):
            return False
        if not self._waits_for_device:
            self._ticks = 0
            self._watch()
        self._last_pos = self._delivered_pos = pos
        self._window.deliver(pos, size)
        self._device.deliver(envelope)
        return True

    def _confirm(self, acked_pos: int) -> None:
        if acked_pos <= self._acked_pos:
            return
        self._acked_pos = acked_pos
        # The server acks what has expired: the device need not, and is not written it any more.
        self._stored_pos = max(self._stored_pos, acked_pos)
        self._last_pos = max(self._last_pos, acked_pos)
        self._window.confirm(acked_pos)
        self._say_caught_up()

    def _say_caught_up(self) -> None:
        if self._head_at_open is not None and self._acked_pos >= self._head_at_open:
            self._device.caught_up(self._head_at_open)
            self._head_at_open = None

    def _advance(self) -> None:
        """Ask for whatever is due and not asked for yet."""
        if self._pause:
            return
        if self._stored_pos > self._acked_pos and not self._ack_asked:
            self._ack_asked = True
            self._service.ack(self._stored_pos)
        if self.phase is Phase.OPEN:
            self._catch_up()
        elif self.phase is Phase.RETIRING:
            self._check_retiring()
        elif self.phase is Phase.OPENING and not self._open_asked:
            self._open_asked = True
            self._service.open()

    def _catch_up(self) -> None:
        if self._last_pos < self._known_head and not self._page_asked:
            envelopes, size = self._window.page(self._known_head - self._last_pos)
            if envelopes:
                self._page_asked = True
                self._service.fetch_page(self._last_pos, max_envelopes=envelopes, max_bytes=size)
        behind = self._last_version < self._known_version
        if behind and not self._receipts_asked and self._device.has_room():
            self._receipts_asked = True
            self._service.fetch_receipts(self._last_version, max_receipts=MOST_RECEIPTS_A_PAGE)

    def _not_asked(self, request: Request) -> None:
        if request is Request.OPEN:
            self._open_asked = False
        elif request is Request.ACK:
            self._ack_asked = False
        elif request is Request.PAGE:
            self._page_asked = False
        else:
            self._receipts_asked = False

    def _check_opening(self) -> None:
        if self._ticks >= 2 * self._limits.ticks_to_open:
            self.end(ends.ServiceUnavailable("the session could not be opened"))

    def _retire(self) -> None:
        self.phase = Phase.RETIRING
        self._ticks = 0
        self._watch()
        self._check_retiring()

    def _check_retiring(self) -> None:
        is_idle = not self.sends.outstanding and self._stored_pos <= self._acked_pos
        if is_idle or self._ticks >= self._limits.ticks_to_retire:
            self.end(_more_than_its_share() if self.is_moved else _taken_down())

    @property
    def _waits_for_device(self) -> bool:
        return self._delivered_pos > self._stored_pos

    @property
    def _is_busy(self) -> bool:
        if self.phase in (Phase.OPENING, Phase.RETIRING):
            return True
        return self.phase is Phase.OPEN and (self._waits_for_device or self._pause > 0)

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._device.watch()


def _taken_down() -> SessionEnd:
    return ends.ServerDraining("the instance is being taken down")


def _more_than_its_share() -> SessionEnd:
    return ends.MoreThanItsShare("the instance has more sessions than its share")
