"""A store that an older version wrote in the clear: it is rewritten, encrypted, in its place.

Whoever opens the store holds its folder meanwhile; the older version is kept out by SQLite's lock.
"""

import os
from contextlib import closing
from pathlib import Path

from whimbrel_client.files import replace
from whimbrel_client.sqlcipher import connect_with
from whimbrel_client.store_key import StoreKey

_HEADER = b"SQLite format 3\0"


def is_in_clear(path: Path) -> bool:
    """Whether the file, which nobody has open, is a store that nothing protects."""
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def encrypt(path: Path, key: StoreKey) -> None:
    """Put an encrypted store with the same content in the place of this one.

    A crash leaves the one or the other, whole. What the old file lay on is freed, not wiped.
    Raises the driver's Error if it is locked or damaged, or the disk is full.
    """
    draft = path.with_suffix(".new")
    for left in (draft, draft.with_name(f"{draft.name}-journal")):
        left.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
    with closing(connect_with(None, path)) as clear:
        # Out of WAL mode: all of it is in the file then, and no log stays that speaks of it.
        clear.execute("PRAGMA locking_mode = EXCLUSIVE")
        clear.execute("PRAGMA journal_mode = DELETE")
        (version,) = clear.execute("PRAGMA user_version").fetchone()
        clear.execute("ATTACH ? AS draft KEY ?", (str(draft), key.for_driver()))
        clear.execute("PRAGMA draft.synchronous = FULL")
        clear.execute("SELECT sqlcipher_export('draft')")
        clear.execute(f"PRAGMA draft.user_version = {version:d}")
        clear.execute("DETACH draft")
        replace(draft, path)
