"""What visibility asks of the shards: many pairs a call, a call a shard."""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.ids import slot_of
from svc_message.identity.contact_store import ContactStore, Pair

_CHOICES = """
SELECT outcome, audience, last_seen, blocked FROM presence_choices($1, $2, $3, $4) ORDER BY item
"""
_MEMBERS = "SELECT outcome, is_member FROM are_members($1, $2, $3, $4) ORDER BY item"


@dataclass(frozen=True, slots=True)
class Choice:
    """What an account lets another see; 0 where there is no such account."""

    audience: int
    last_seen: int
    is_blocking: bool


class VisibilityStore(ContactStore):
    """Reads about pairs, in their order."""

    async def choices(self, pairs: Sequence[Pair]) -> list[Choice]:
        """What the first of each pair lets the second see."""
        slots = [slot_of(user) for user, _ in pairs]
        rows = await self._ask_each(_CHOICES, slots, *_columns(pairs))
        return [Choice(row["audience"] or 0, row["last_seen"] or 0, row["blocked"]) for row in rows]

    async def memberships(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether the second of each pair is a member of the first, a group."""
        slots = [slot_of(group) for group, _ in pairs]
        rows = await self._ask_each(_MEMBERS, slots, *_columns(pairs))
        return [row["is_member"] for row in rows]


def _columns(pairs: Sequence[Pair]) -> tuple[list[bytes], list[bytes]]:
    return [first for first, _ in pairs], [second for _, second in pairs]
