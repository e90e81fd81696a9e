"""What a conversation is called and where it lives."""

import functools
import hashlib

from mesh.ids import slot_of


@functools.lru_cache(maxsize=65_536)
def direct_conversation(user: bytes, peer: bytes) -> tuple[bytes, int]:
    """The id of the direct chat of two users, and its slot.

    It lives with one of the two, chosen by the id's last bit, so that no old account collects all
    its chats.
    """
    lower, higher = (user, peer) if user < peer else (peer, user)
    conversation_id = hashlib.sha256(b"direct" + lower + higher).digest()[:16]
    home = higher if conversation_id[-1] & 1 else lower
    return conversation_id, slot_of(home)
