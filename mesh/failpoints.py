"""Named points at which a fault test lets this process die.

A point is armed by a setting, `name:count`: the process kills itself with SIGKILL as it passes that
point for the count-th time. Unarmed, passing a point costs one comparison.
"""

import os
import signal


class Failpoints:
    """The points of one process, of which at most one is armed."""

    def __init__(self, armed: str = "") -> None:
        name, _, count = armed.partition(":")
        self._name = name
        self._passes_left = int(count or 1)

    def hit(self, name: str) -> None:
        """Pass the point `name`; die here if it is armed and its count is reached."""
        if name != self._name:
            return
        self._passes_left -= 1
        if self._passes_left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
