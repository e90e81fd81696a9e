"""Sees to what encryption needs of the key server: sessions to open, one-time keys to refill."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from whimbrel_client.crypto import CryptoError
from whimbrel_client.errors import CallFailed, Unreachable
from whimbrel_client.identity import IdentityCalls
from whimbrel_client.key_calls import KeyCalls
from whimbrel_client.key_store import KeyStore, Refusal

log = logging.getLogger(__name__)

LOW = 20

_ALL = 0
_LONGEST_WAIT = 60.0
_COUNT_EVERY = 3600.0
_AT_ONCE = 4


class Upkeep:
    """Works beside the stream; everything is tried again until it is done."""

    def __init__(
        self,
        store: KeyStore,
        calls: KeyCalls,
        *,
        on_opened: Callable[[], None],
        on_refused: Callable[[Iterable[Refusal]], None],
        on_failing: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._store = store
        self._calls = calls
        self._on_opened = on_opened
        self._on_refused = on_refused
        self._on_failing = on_failing
        self._wanted: asyncio.Queue[bytes] = asyncio.Queue()
        # Wanted and not yet done, each once: so the queue has at most all the people written to.
        self._open: set[bytes] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._count_due = asyncio.Event()
        self._count_again_at = 0.0

    def want(self, user_ids: Iterable[bytes]) -> None:
        """There is something to send to these accounts, and no session."""
        for user_id in user_ids:
            if user_id not in self._open:
                self._open.add(user_id)
                self._wanted.put_nowait(user_id)

    def online(self) -> None:
        """A stream is open: look now and then whether the one-time keys suffice."""
        if asyncio.get_running_loop().time() >= self._count_again_at:
            self._count_due.set()

    def low(self) -> None:
        """The mesh says that one-time keys run out."""
        self._count_due.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._refill(), name="whimbrel-refill-keys")
            while True:
                user_id = await self._wanted.get()
                tasks.create_task(self._open_all(user_id), name="whimbrel-open-sessions")

    async def _open_all(self, user_id: bytes) -> None:
        async def attempt() -> None:
            async with self._slots:
                try:
                    await self._open_once(user_id)
                except (CallFailed, Unreachable, CryptoError):
                    await self._on_failing(user_id)
                    raise

        try:
            await until_done(attempt, "no session could be opened")
        finally:
            self._open.discard(user_id)
            self._on_opened()

    async def _open_once(self, user_id: bytes) -> None:
        for device_id in await self._store.lacking(user_id):
            try:
                fetched = await self._calls.fetch(user_id, device_id)
            except CallFailed as error:
                if error.reason != "RECIPIENT_UNKNOWN":
                    raise
                self._on_refused(await self._store.unknown(user_id, device_id, error.reason))
            else:
                await self._store.open_sessions(user_id, fetched)

    async def _refill(self) -> None:
        while True:
            await self._count_due.wait()
            self._count_due.clear()
            await until_done(self._refill_once, "the one-time keys could not be counted")
            self._count_again_at = asyncio.get_running_loop().time() + _COUNT_EVERY

    async def _refill_once(self) -> None:
        if await self._calls.left() < LOW:
            await self._calls.upload(await self._store.new_pools())


async def upload_first_pools(store: KeyStore, calls: IdentityCalls, token: str) -> None:
    """Give a new device its one-time keys; if that fails, its first stream sees to it."""

    async def its_token() -> str:
        return token

    try:
        await KeyCalls(calls, its_token).upload(await store.new_pools())
    except (CallFailed, Unreachable) as error:
        log.warning("the one-time keys could not be uploaded: %s", error)


async def until_done(attempt: Callable[[], Awaitable[None]], failure: str) -> None:
    """Try again and again, the later the longer it has failed."""
    wait = 0.5
    while True:
        try:
            await attempt()
            return
        except (CallFailed, Unreachable, CryptoError) as error:
            log.warning("%s: %s", failure, error)
            told = error.retry_after if isinstance(error, CallFailed) else None
        wait = min(_LONGEST_WAIT, 2 * wait)
        least = told.total_seconds() if told is not None else wait / 2
        await asyncio.sleep(random.uniform(least, least + wait / 2))  # noqa: S311
