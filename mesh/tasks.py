"""Tasks with a name and an owner: what runs again and again, and what must not die of one error."""

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from mesh.backoff import Backoff
from mesh.clock import Clock, SystemClock

log = structlog.get_logger(__name__)

# A run this long means that the failure before it is over.
_HEALTHY_AFTER = 30.0

Work = Callable[[], Awaitable[object]]


async def periodically(
    work: Work,
    every: timedelta,
    *,
    name: str,
    jitter: float = 0.1,
    clock: Clock | None = None,
    chance: random.Random | None = None,
) -> None:
    """Do `work` for ever, `every` apart, give or take `jitter` of it; an error is logged.

    The first time is one interval from now. This is a task's root: it ends by cancellation only.
    """
    clock = clock or SystemClock()
    chance = chance or random.Random()  # noqa: S311  spreads load, hides nothing
    while True:
        await clock.sleep(every.total_seconds() * chance.uniform(1 - jitter, 1 + jitter))
        await _tried(work, name)


async def supervised(
    work: Work, *, name: str, clock: Clock | None = None, backoff: Backoff | None = None
) -> None:
    """Run `work`, which should never end, and run it again after a pause when it fails."""
    clock, backoff = clock or SystemClock(), backoff or Backoff()
    while True:
        started = clock.monotonic()
        await _tried(work, name)
        if clock.monotonic() - started > _HEALTHY_AFTER:
            backoff.reset()
        await clock.sleep(backoff.next())


async def _tried(work: Work, name: str) -> None:
    try:
        await work()
    except Exception:
        log.exception("task failed", task=name)
