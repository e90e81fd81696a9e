"""What one device may be owed at once: deliveries it has not acknowledged, sends not answered."""

from collections import deque
from dataclasses import dataclass

KIB = 1024
MOST_BODY_BYTES = 192 * KIB


@dataclass(slots=True)
class Budget:
    """The bytes that all sessions of this process together may leave unacknowledged."""

    most: int
    used: int = 0

    @property
    def left(self) -> int:
        return max(0, self.most - self.used)


class DeliveryWindow:
    """The deliveries of one stream whose acknowledgement is not durable yet.

    While the process budget is spent, one delivery at a time still goes through: every session
    comes forward, and none can starve the others.
    """

    __slots__ = ("_budget", "_deliveries", "_most", "_most_bytes", "_used_bytes")

    def __init__(self, *, most: int, most_bytes: int, budget: Budget) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._budget = budget
        # Made with the first delivery: an idle session has none, and there are many of those.
        self._deliveries: deque[tuple[int, int]] | None = None
        self._used_bytes = 0

    def __len__(self) -> int:
        return len(self._deliveries) if self._deliveries else 0

    @property
    def most(self) -> int:
        return self._most

    def narrow(self, most: int) -> None:
        """Take the device's own bound, where it is the lower one."""
        self._most = min(self._most, most)

    def has_room(self, size: int) -> bool:
        """Whether a delivery of `size` bytes may be made now."""
        if not self._deliveries:
            return True
        if size > self._budget.left:
            return False
        return len(self._deliveries) < self._most and self._used_bytes + size <= self._most_bytes

    def page(self, waiting: int) -> tuple[int, int]:
        """How many deliveries, and bytes of them, to ask for when `waiting` are there.

        (0, 0) while it is better to wait for acks: a page a window's half is worth its price.
        """
        count = min(self._most - len(self), waiting)
        # The last envelope of a page may go over the bytes asked for by one body.
        free_bytes = self._most_bytes - self._used_bytes - MOST_BODY_BYTES
        is_worth_it = count >= min(waiting, (self._most + 1) // 2)
        if self._budget.left and is_worth_it and free_bytes >= self._most_bytes // 4:
            return count, min(free_bytes, self._budget.left)
        return (0, 0) if self._deliveries else (1, 1)

    def deliver(self, pos: int, size: int) -> None:
        """Count a delivery until it is confirmed."""
        if self._deliveries is None:
            self._deliveries = deque()
        self._deliveries.append((pos, size))
        self._used_bytes += size
        self._budget.used += size

    def confirm(self, up_to_pos: int) -> None:
        """All deliveries up to a position are acknowledged, and that is durable."""
        deliveries = self._deliveries
        if not deliveries:
            return
        freed = 0
        while deliveries and deliveries[0][0] <= up_to_pos:
            freed += deliveries.popleft()[1]
        self._used_bytes -= freed
        self._budget.used -= freed
        if not deliveries:
            self._deliveries = None

    def close(self) -> None:
        """The stream is over: give back to the budget what it held."""
        self._budget.used -= self._used_bytes
        self._used_bytes = 0
        self._deliveries = None


class SendWindow:
    """The sends of one stream that wait for their answer."""

    __slots__ = ("_most", "_most_bytes", "_used_bytes", "outstanding")

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._used_bytes = 0
        self.outstanding = 0

    def has_room(self, size: int) -> bool:
        """Whether one more send may wait; a single one may be of any size."""
        if not self.outstanding:
            return True
        return self.outstanding < self._most and self._used_bytes + size <= self._most_bytes

    def take(self, size: int) -> None:
        self.outstanding += 1
        self._used_bytes += size

    def answered(self, size: int) -> None:
        self.outstanding -= 1
        self._used_bytes -= size
