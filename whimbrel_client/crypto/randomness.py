"""The one place that randomness comes from, so that a recorded conversation can be replayed.

Only Kyber's encapsulation draws its own: the native library takes no other.
"""

import os


def draw(size: int) -> bytes:
    """Return bytes that nobody else can know."""
    return os.urandom(size)
