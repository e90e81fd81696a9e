"""The driver of the local store: SQLCipher, which has the interface and the types of `sqlite3`."""

from pathlib import Path
from typing import TYPE_CHECKING

from whimbrel_client.store_key import StoreKey

if TYPE_CHECKING:
    from sqlite3 import Connection, DatabaseError, Error, connect
else:
    from sqlcipher3.dbapi2 import Connection, DatabaseError, Error, connect

__all__ = ["Connection", "DatabaseError", "Error", "connect_with"]


def connect_with(key: StoreKey | None, path: Path) -> Connection:
    """Open the file, without looking into it; without a key: as it is."""
    connection = connect(path, isolation_level=None, timeout=0.2)
    # The library writes of a wrong key to standard error, unless it is asked not to.
    connection.execute("PRAGMA cipher_log_level = NONE")
    if key is not None:
        connection.execute(f'PRAGMA key = "{key.for_driver()}"')
    return connection
