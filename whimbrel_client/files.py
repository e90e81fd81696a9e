"""Files of the profile: written whole or not at all, for the owner's eyes only, durable."""

import fcntl
import os
from pathlib import Path


def write_secret(path: Path, content: bytes) -> None:
    """Replace the file as a whole: a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(path.suffix + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    replace(draft, path)


def replace(draft: Path, path: Path) -> None:
    """Put the draft, which is on the disk, in the place of the file, also after a power cut."""
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def hold(folder: Path) -> int:
    """Keep everybody else from holding the folder, until the descriptor is closed.

    The end of the process closes it. Raises BlockingIOError at once if somebody has it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
