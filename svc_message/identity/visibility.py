"""What people may learn of each other's presence: asked by the service that tells it."""

from collections.abc import Sequence
from dataclasses import dataclass

from svc_message.identity.contact_store import Pair
from svc_message.identity.personal import Audience, LastSeen, may
from svc_message.identity.visibility_store import Choice, VisibilityStore


@dataclass(frozen=True, slots=True)
class Terms:
    """What one person may learn of another."""

    is_visible: bool
    is_unblocked: bool
    last_seen_seconds: int


class Visibility:
    """Answers in the order of the questions. Raises ShardUnavailable, SlotMoving.

    It is mutual: presence is seen only where each lets the other see it.
    """

    def __init__(self, store: VisibilityStore) -> None:
        self._store = store

    async def terms(self, viewings: Sequence[Pair]) -> list[Terms]:
        """What the second of each pair may learn of the first."""
        # Both ways at once: those of the owner's, then those of the viewer's side.
        sides = [*viewings, *((viewer, user) for user, viewer in viewings)]
        choices = await self._store.choices(sides)
        allowed = await self._allowed(sides, choices)
        half = len(viewings)
        return [
            _terms(choices[i], choices[half + i], allowed[i] and allowed[half + i])
            for i in range(half)
        ]

    async def memberships(self, memberships: Sequence[Pair]) -> list[bool]:
        """Whether the second of each pair is a member of the group that is the first."""
        return await self._store.memberships(memberships)

    async def _allowed(self, sides: Sequence[Pair], choices: Sequence[Choice]) -> list[bool]:
        """Whether each first lets the second see: contacts are asked for where it matters."""
        asked = [i for i, choice in enumerate(choices) if choice.audience == Audience.CONTACTS]
        contacts = dict(
            zip(asked, await self._store.have_sent([sides[i] for i in asked]), strict=True)
        )
        return [
            may(choice.audience, is_contact=contacts.get(i, False))
            for i, choice in enumerate(choices)
        ]


def _terms(owner: Choice, viewer: Choice, is_allowed: bool) -> Terms:  # noqa: FBT001
    is_unblocked = not owner.is_blocking and not viewer.is_blocking
    return Terms(is_unblocked and is_allowed, is_unblocked, LastSeen(owner.last_seen or 1).seconds)
