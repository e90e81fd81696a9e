"""Wakes whoever waits for something to change."""

import asyncio


class Bell:
    """Each ring wakes all who hold the event of before it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def next_ring(self) -> asyncio.Event:
        """Set at the next ring. Take it first, then look, then wait: no ring is missed."""
        return self._event

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()
