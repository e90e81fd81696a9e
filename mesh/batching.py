"""What many ask of a store at once, in batches: while one is on its way, the next one fills.

So the more is asked, the fuller batches are; a lone question waits for nobody.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

# The results in the items' order.
Run = Callable[[Sequence[I]], Awaitable[Sequence[R]]]


class Batches(Generic[I, R]):
    """Batches of one kind. `is_of_all`: whether an error has to do with no single item."""

    def __init__(
        self, run: Run[I, R], *, is_of_all: Callable[[Exception], bool], most: int = 64
    ) -> None:
        self._run = run
        self._is_of_all = is_of_all
        self._most = most
        self._waiting: deque[tuple[I, asyncio.Future[R]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def ask(self, item: I) -> R:
        """The item's result. Raises what the store raises; of another item's fault nothing."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, result))
        if self._working is None:
            # It lasts as long as somebody waits. Whoever can run now is in the first batch.
            self._working = loop.create_task(self._work(), name="batches")
        return await result

    async def _work(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), self._most)
                taken = [self._waiting.popleft() for _ in range(count)]
                # Who went away meanwhile wants nothing any more.
                await self._settle([one for one in taken if not one[1].done()])
        finally:
            self._working = None

    async def _settle(self, batch: Sequence[tuple[I, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch]) if batch else ()
        except Exception as error:  # noqa: BLE001  the askers' to deal with
            if len(batch) > 1 and not self._is_of_all(error):
                for one in batch:
                    await self._settle([one])
                return
            for _, result in batch:
                if not result.done():
                    result.set_exception(error)
            return
        for (_, result), value in zip(batch, results, strict=True):
            if not result.done():
                result.set_result(value)
