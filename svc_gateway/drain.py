"""Sends devices away, not all at once: those of an instance that is taken down, or some."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from math import ceil

from mesh.clock import Clock, SystemClock
from svc_gateway.stream import DeviceStream

_STEP = 0.05


async def send_away(
    streams: Iterable[DeviceStream],
    *,
    spread: timedelta,
    retire: Callable[[DeviceStream], None],
    clock: Clock | None = None,
) -> None:
    """Retire all streams, evenly over `spread`: they come back elsewhere, and not as one."""
    clock = clock or SystemClock()
    waiting = [*streams]
    share = max(1, ceil(len(waiting) * _STEP / max(_STEP, spread.total_seconds())))
    while waiting:
        for stream in waiting[:share]:
            retire(stream)
        del waiting[:share]
        if waiting:
            await clock.sleep(_STEP)


async def until_gone(gone: asyncio.Event, within: timedelta) -> bool:
    """Wait for the last stream to end; False if it did not in time."""
    try:
        async with asyncio.timeout(within.total_seconds()):
            await gone.wait()
    except TimeoutError:
        return False
    return True
