"""What the workloads share: telling milestones, and waiting for the devices to have come so far."""

import asyncio
from collections.abc import Callable
from typing import Protocol

_POLL = 0.005


class Tell(Protocol):
    """Returns when the milestone has been taken note of."""

    async def __call__(self, name: str, done: int = 0) -> None: ...


async def until(condition: Callable[[], bool], *, within: float) -> None:
    """Look every few milliseconds: devices have better things to do than to tell."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
