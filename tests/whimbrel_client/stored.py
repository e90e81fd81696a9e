"""A look into a store that nobody has open, past the SDK, and a hand in it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from whimbrel_client.sqlcipher import Connection, connect_with
from whimbrel_client.store_key import BY_ITSELF, store_key


@contextmanager
def looked_into(store: Path) -> Iterator[Connection]:
    """The connection; each statement is a transaction."""
    key = store_key(store, BY_ITSELF, may_be_new=False)
    with closing(connect_with(key, store)) as connection:
        yield connection
