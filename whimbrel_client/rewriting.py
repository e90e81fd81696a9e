"""A store is written anew under a key, in its place: one in the clear, or one of another key.

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


def rewrite(path: Path, before: StoreKey | None, key: StoreKey) -> None:
    """Put a store with the same content and another key in the place of this one.

    `before`: its key until now; None: it is in the clear. A crash leaves the one or the other,
    whole. What the old file lay on is freed, not wiped. Raises the driver's Error if the store is
    locked or damaged, or the disk is full.
    """
    draft = path.with_suffix(".new")
    for left in (draft, draft.with_name(f"{draft.name}-journal")):
        left.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
    with closing(connect_with(before, path)) as old:
        # Out of WAL mode: all of it is in the file then, and no log stays that speaks of it.
        old.execute("PRAGMA locking_mode = EXCLUSIVE")
        old.execute("PRAGMA journal_mode = DELETE")
        (version,) = old.execute("PRAGMA user_version").fetchone()
        old.execute("ATTACH ? AS draft KEY ?", (str(draft), key.for_driver()))
        old.execute("PRAGMA draft.synchronous = FULL")
        old.execute("SELECT sqlcipher_export('draft')")
        old.execute(f"PRAGMA draft.user_version = {version:d}")
        old.execute("DETACH draft")
        replace(draft, path)
