"""Tells a shard what became of its groups' messages; what is not told comes up as overdue."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from mesh.postgres import STORE_ERRORS
from svc_message.groups.message_store import GroupMessageStore
from svc_message.groups.requests import GroupMessage

log = structlog.get_logger(__name__)

_EVERY = 0.1


class Settler:
    """The entries of one shard that are to be removed, or postponed; nobody waits for it."""

    def __init__(
        self, store: GroupMessageStore, on_settled: Callable[[Sequence[GroupMessage]], None]
    ) -> None:
        self._store = store
        self._on_settled = on_settled
        self._done: list[GroupMessage] = []
        self._failed: list[tuple[GroupMessage, timedelta]] = []
        self._wake = asyncio.Event()

    def remove(self, message: GroupMessage) -> None:
        """Every member has the message."""
        self._done.append(message)
        self._wake.set()

    def postpone(self, message: GroupMessage, wait: timedelta) -> None:
        """Somebody does not have it yet; the message's `rest` says in which slots."""
        self._failed.append((message, wait))
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_EVERY)  # for company
            self._wake.clear()
            await self._flush()

    async def _flush(self) -> None:
        done, self._done = self._done, []
        failed, self._failed = self._failed, []
        try:
            await self._store.settle(done, failed)
        except STORE_ERRORS as error:
            log.warning("entries stay for the sweep", error=type(error).__name__)
        self._on_settled([*done, *(message for message, _ in failed)])
