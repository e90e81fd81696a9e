"""Whether a client still lives, and what it tells while it does."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from whimbrel_client.bell import Bell
from whimbrel_client.errors import ClientClosed, ClientError

T = TypeVar("T")


class Life:
    """From the beginning of a client to its end, which wakes whoever waits."""

    def __init__(self) -> None:
        self._bells: list[Bell] = []
        self._has_ended = False
        self._failure: ClientError | None = None

    def bell(self) -> Bell:
        """A bell that rings at the end as well."""
        bell = Bell()
        self._bells.append(bell)
        return bell

    def end(self, failure: BaseException | None) -> ClientError | None:
        """The client has ended, by itself or by a failure, which is returned as people see it."""
        if failure is not None:
            self._failure = _cause(failure)
        self._has_ended = True
        for bell in self._bells:
            bell.ring()
        return self._failure

    def raise_if_failed(self) -> None:
        """Raise what has ended the client, if it has not ended by being closed."""
        if self._failure is not None:
            raise self._failure

    def raise_if_ended(self) -> None:
        """Raise what has ended the client, or ClientClosed."""
        self.raise_if_failed()
        if self._has_ended:
            raise ClientClosed("the client is closed")

    async def each(
        self,
        bell: Bell,
        read: Callable[[int], Awaitable[Sequence[T]]],
        after: int,
        place_of: Callable[[T], int],
    ) -> AsyncGenerator[T, None]:
        """All that the store has behind a place, then each when the bell has rung for it.

        It ends once the client has ended by itself and there is nothing more to read.
        """
        while True:
            ring = bell.next_ring()
            try:
                page = await read(after)
            except ClientClosed:
                return
            for one in page:
                after = place_of(one)
                yield one
            if not page:
                self.raise_if_failed()
                await ring.wait()


def _cause(error: BaseException) -> ClientError:
    """Look through a TaskGroup's wrapping; a bug is told as a failure of the client."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ClientError):
        return error
    failed = ClientError(f"the client has failed: {error!r}")
    failed.__cause__ = error
    return failed
