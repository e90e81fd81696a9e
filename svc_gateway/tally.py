"""What this gateway counts: plain numbers on the hot path, told to the telemetry once a second."""

from mesh.metrics import DELIVERIES, FRAMES, IGNORED, REPEATS, SESSION_ENDS
from mesh.telemetry import OFF, Telemetry

_ACK = {"kind": "ack"}
_WRITING = {"kind": "writing"}


class Tally:
    """Counts that only grow; whoever counts adds to them."""

    def __init__(self, telemetry: Telemetry = OFF) -> None:
        self.deliveries = 0
        self.frames = 0
        self.ignored_acks = 0
        self.ignored_writings = 0
        self.repeats = 0
        self._told = (0, 0, 0, 0, 0)
        self._deliveries = telemetry.counter(DELIVERIES)
        self._frames = telemetry.counter(FRAMES)
        self._ignored = telemetry.counter(IGNORED)
        self._repeats = telemetry.counter(REPEATS)
        self._ends = telemetry.counter(SESSION_ENDS)

    def ended(self, reason: str) -> None:
        """A session has ended; the device's own half-close has no reason."""
        self._ends.add(1, {"reason": reason or "HALF_CLOSED"})

    def tell(self) -> None:
        """Tell what has been counted since."""
        deliveries, frames, ignored_acks, ignored_writings, repeats = self._told
        self._deliveries.add(self.deliveries - deliveries)
        self._frames.add(self.frames - frames)
        self._ignored.add(self.ignored_acks - ignored_acks, _ACK)
        self._ignored.add(self.ignored_writings - ignored_writings, _WRITING)
        self._repeats.add(self.repeats - repeats)
        self._told = (
            self.deliveries,
            self.frames,
            self.ignored_acks,
            self.ignored_writings,
            self.repeats,
        )
