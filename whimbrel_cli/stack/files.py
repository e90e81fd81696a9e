"""The data directory: private files in it, and the right to use it."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from whimbrel_cli.stack.errors import InUse


def write_private(path: Path, text: str) -> None:
    """Replace the file's content in one step; only its owner may read it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    beside.replace(path)


def read_or_make_secret(path: Path, *, make: Callable[[], str]) -> str:
    """Return the secret kept in the file, made and kept there the first time."""
    if not path.exists():
        write_private(path, make())
    return path.read_text().strip()


@contextlib.contextmanager
def owned(data: Path) -> Iterator[None]:
    """Hold the directory for this process alone; the kernel lets go of it when the process ends."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock_for_us(lock, data)
        yield
    finally:
        os.close(lock)


def _lock_for_us(lock: int, data: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode() or "not yet written"
        raise InUse(f"{data} is in use by a mesh that is up (pid {holder})") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
