"""Whether, and after how long, a client returns to the mesh; pure but for chance."""

import random
from dataclasses import dataclass

from whimbrel_client.errors import DeviceRevoked

_FIRST_SECONDS = 0.25
_MOST_SECONDS = 15.0

REPLACED = "STREAM_REPLACED"
REVOKED = frozenset({"DEVICE_REVOKED", "DEVICE_UNKNOWN", "SIGNATURE_INVALID"})
BAD_TOKEN = frozenset({"TOKEN_EXPIRED", "TOKEN_INVALID", "TOKEN_MISSING", "UNAUTHENTICATED"})


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ended, or why none began."""

    # A whimbrel.error.v1.ErrorReason without its prefix, or a gRPC status; empty: we ended it.
    reason: str = ""
    reconnect_after: float | None = None
    # Seconds from the welcome; 0 if there was none.
    lasted: float = 0.0


class Comeback:
    """Full jitter, unless the mesh has said when to return."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311  # jitter, not a secret
        self._failures = 0

    def delay_after(self, ending: Ending) -> float:
        """Seconds to wait before the next stream. Raises DeviceRevoked: never."""
        if ending.reason in REVOKED:
            raise DeviceRevoked(ending.reason)
        if not ending.reason:
            return 0.0
        # A stream that lived longer than the wait before it was a good one.
        self._failures = 1 if ending.lasted >= self._bound() else self._failures + 1
        if ending.reason == REPLACED:
            # Someone else has this device's key: let two such clients not chase each other.
            return max(ending.reconnect_after or 0.0, self._chance.uniform(1.0, 5.0))
        if ending.reconnect_after is not None:
            return ending.reconnect_after
        return self._chance.uniform(0.0, self._bound())

    def _bound(self) -> float:
        return min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** (min(self._failures, 10) - 1))
