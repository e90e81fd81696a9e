"""One SQLite file, encrypted; one thread; what waits together is committed together."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from whimbrel_client.errors import (
    ClientClosed,
    ProfileInUse,
    StoreFailed,
    StoreKeyWrong,
    StoreTooNew,
)
from whimbrel_client.files import hold
from whimbrel_client.rekeying import settle
from whimbrel_client.rewriting import is_in_clear, rewrite
from whimbrel_client.sqlcipher import (
    Connection,
    DatabaseError,
    Error,
    connect_with,
)
from whimbrel_client.store_key import Protection, StoreKey, store_key

T = TypeVar("T")
Operation = Callable[[Connection], Any]

# One process has the file open, which keeps the log's index out of the file system.
# FULL makes each commit survive a power cut, not only a kill.
_PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -16000;
PRAGMA wal_autocheckpoint = 4000;
"""


class _Waiting(NamedTuple):
    operation: Operation
    answer: asyncio.Future[Any]


class Database:
    """Runs operations in order on its own thread; each is atomic, many share one transaction.

    An operation may run twice (alone, after a batch failed): its only effect is on the database.
    """

    def __init__(self, path: Path, protection: Protection, *, migrations: Sequence[str]) -> None:
        self._path = path
        self._protection = protection
        self._migrations = migrations
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="whimbrel-store")
        self._connection: Connection | None = None
        # What keeps a second process out, for as long as this one lives.
        self._hold: int | None = None
        self._waiting: list[_Waiting] = []
        self._is_running = False
        self._is_closing = False
        self.on_rollback: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Open the file, made if it is not there, and bring it up to date.

        Raises ProfileInUse, StoreTooNew and StoreKeyFailed.
        """
        loop = asyncio.get_running_loop()
        try:
            self._connection = await loop.run_in_executor(self._thread, self._open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """Finish what waits and close the file."""
        if self._connection is not None and not self._is_closing:
            last = self.run(lambda _: None)
            self._is_closing = True
            await last
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def run(self, operation: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Queue the operation; when the answer is there, it is committed. Raises StoreFailed."""
        if self._connection is None or self._is_closing:
            raise ClientClosed("the store is closed")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(operation, answer))
        self._start_batch()
        return answer

    def _start_batch(self) -> None:
        if self._is_running or not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        self._is_running = True
        operations = [waiting.operation for waiting in batch]
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._thread, self._run_batch, operations)
        done.add_done_callback(lambda done: self._finish_batch(batch, done.result()))

    def _finish_batch(self, batch: Sequence[_Waiting], results: Sequence[Any]) -> None:
        self._is_running = False
        for waiting, result in zip(batch, results, strict=True):
            if waiting.answer.done():
                continue  # whoever asked was cancelled
            if isinstance(result, BaseException):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(result)
        self._start_batch()

    # From here on in the store's thread.

    def _run_batch(self, operations: Sequence[Operation]) -> list[Any]:
        try:
            return self._transact(operations)
        except Exception as error:  # noqa: BLE001  # the root of the thread: given to who asked
            self.on_rollback()
            if len(operations) == 1:
                return [_explained(error)]
        return [result for operation in operations for result in self._run_batch([operation])]

    def _transact(self, operations: Sequence[Operation]) -> list[Any]:
        connection = self._connection
        assert connection is not None  # noqa: S101  # `run` has looked
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [operation(connection) for operation in operations]
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return results

    def _open(self) -> Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._hold = hold(self._path.parent)
        except BlockingIOError:
            raise ProfileInUse(f"{self._path} is open in another process") from None
        try:
            return self._unlocked(self._key())
        except Error as error:
            self._let_go()
            if "locked" in str(error):
                raise ProfileInUse(f"{self._path} is open in another process") from error
            raise StoreFailed(f"{self._path}: {error}") from error
        except BaseException:
            self._let_go()
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None

    def _key(self) -> StoreKey:
        """The key, made for a new store; a store in the clear is encrypted with it first."""
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        in_clear = is_in_clear(self._path)
        is_new = in_clear or not self._path.stat().st_size
        if not is_new:
            settle(self._path, self._protection)
        key = store_key(self._path, self._protection, may_be_new=is_new)
        if in_clear:
            rewrite(self._path, None, key)
        return key

    def _unlocked(self, key: StoreKey) -> Connection:
        connection = connect_with(key, self._path)
        try:
            connection.executescript(_PRAGMAS)
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            self._migrate(connection)
        except DatabaseError as error:
            connection.close()
            if error.sqlite_errorname == "SQLITE_NOTADB":
                raise StoreKeyWrong(
                    f"{self._path} is not opened by {key.origin}, or is damaged"
                ) from error
            raise
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise StoreTooNew(f"{self._path} was written by a later version")
        for number, script in enumerate(self._migrations[version:], start=version + 1):
            with contextlib.closing(connection.cursor()) as cursor:
                cursor.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


def _explained(error: Exception) -> Exception:
    if isinstance(error, Error):
        failed = StoreFailed(f"the local store failed: {error}")
        failed.__cause__ = error
        return failed
    return error
