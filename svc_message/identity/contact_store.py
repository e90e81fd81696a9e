"""Who has ever sent to whom, which is what makes a contact."""

from collections.abc import Sequence

from svc_message.conversations import direct_conversation
from svc_message.identity.slot_store import SlotStore

_HAVE_SENT = "SELECT outcome, sent FROM have_sent($1, $2, $3, $4) ORDER BY item"

Pair = tuple[bytes, bytes]


class ContactStore(SlotStore):
    """Reads of many direct chats."""

    async def have_sent(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether the first of each pair has ever sent to the second."""
        chats = [direct_conversation(sender, peer) for sender, peer in pairs]
        rows = await self._ask_each(
            _HAVE_SENT,
            [slot for _, slot in chats],
            [id_ for id_, _ in chats],
            [sender for sender, _ in pairs],
        )
        return [row["sent"] for row in rows]
