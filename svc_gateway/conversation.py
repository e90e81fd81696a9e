"""Which conversation is meant, and in whose slot it lives."""

import functools
import hashlib
from typing import NamedTuple

from mesh.ids import ID_BYTES, slot_of


class Conversation(NamedTuple):
    """A direct chat of two people, or a group."""

    conversation_id: bytes
    home: bytes  # the user or the group in whose slot it lives
    slot: int


@functools.lru_cache(maxsize=65_536)
def direct(user_id: bytes, peer_id: bytes) -> Conversation:
    """The chat of two users; the same whoever asks."""
    lower, higher = sorted((user_id, peer_id))
    conversation_id = hashlib.sha256(b"direct" + lower + higher).digest()[:ID_BYTES]
    # By the last bit, so that an old account, whose id is low, does not collect all its chats.
    home = higher if conversation_id[-1] & 1 else lower
    return Conversation(conversation_id, home, slot_of(home))


@functools.lru_cache(maxsize=65_536)
def group(group_id: bytes) -> Conversation:
    """A group: it is its own conversation, and its own home."""
    return Conversation(group_id, group_id, slot_of(group_id))
