"""Another key for a store: the store is written anew beside the old one, and takes its place.

While that goes on the card names both keys, so that a crash leaves a store that one of them opens.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

from whimbrel_client.errors import ProfileInUse, StoreFailed, StoreKeyFailed, StoreKeyWrong
from whimbrel_client.files import hold
from whimbrel_client.rewriting import rewrite
from whimbrel_client.sqlcipher import Error, connect_with
from whimbrel_client.store_key import (
    Protection,
    StoreKey,
    forget,
    key_of,
    new_card,
    read_card,
    write_card,
)

_NEXT = "next"


def change_key(store: Path, now: Protection, then: Protection) -> None:
    """Let the store be opened by another protection from now on; nobody may have it open.

    Raises ProfileInUse, StoreFailed, and StoreKeyFailed if `now` does not open it.
    """
    try:
        descriptor = hold(store.parent)
    except BlockingIOError:
        raise ProfileInUse(f"{store} is open in another process") from None
    try:
        settle(store, now)
        card = read_card(store)
        before = key_of(card, store, now)
        if not _opens(store, before):
            raise StoreKeyWrong(f"{store} is not opened by {before.origin}, or is damaged")
        following = new_card(then)
        write_card(store, {**card, _NEXT: following})
        rewrite(store, before, key_of(following, store, then))
        write_card(store, following)
        forget(card)
    except Error as error:
        raise StoreFailed(f"{store}: {error}") from error
    finally:
        os.close(descriptor)


def settle(store: Path, protection: Protection) -> None:
    """Finish or undo a change of the key that was cut off, if what is given opens the store.

    Whoever calls it holds the folder.
    """
    card = _card_of(store)
    following = card.pop(_NEXT, None)
    if following is None:
        return
    for one, other in ((card, following), (following, card)):
        with contextlib.suppress(StoreKeyFailed):
            if _opens(store, key_of(one, store, protection)):
                write_card(store, one)
                forget(other)
                return


def _card_of(store: Path) -> dict[str, Any]:
    """The card; empty if there is none, or it is damaged, which whoever needs it will say."""
    try:
        return read_card(store)
    except StoreKeyFailed:
        return {}


def _opens(store: Path, key: StoreKey) -> bool:
    with contextlib.closing(connect_with(key, store)) as connection:
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except Error as error:
            if error.sqlite_errorname == "SQLITE_NOTADB":
                return False
            raise
    return True
