"""What becomes of groups when a member's account ends: it leaves, and an owner leaves an heir."""

from collections.abc import Mapping, Sequence

from mesh.errors import Unavailable
from svc_message.groups.model import Group, GroupUnknown, Member, Revision, Role
from svc_message.groups.store import GroupStore

_TRIES = 20


class Departing:
    """Takes an account out of its groups."""

    def __init__(self, store: GroupStore, *, logged: bytes) -> None:
        self._store = store
        self._logged = logged  # what a group's log says of it

    async def depart(self, user_id: bytes) -> None:
        """Leave every group. May be repeated. Raises Unavailable."""
        for group in await self._store.groups_of(user_id):
            await self._leave(group.group_id, user_id)

    async def _leave(self, group_id: bytes, user_id: bytes) -> None:
        for _ in range(_TRIES):
            group = await self._store.read(group_id, [user_id])
            try:
                members = await self._store.members(group_id, user_id)
            except GroupUnknown:
                return
            revision = departure(group, user_id, members)
            number = group.revision + 1
            if await self._store.commit(group_id, number, user_id, revision, self._logged):
                return
        raise Unavailable("too many change the group at once")


def departure(group: Group, user_id: bytes, members: Sequence[Member]) -> Revision:
    """Without the user, and if that was the owner with the heir: the highest, then the eldest."""
    others = [member for member in members if member.user_id != user_id]
    heirs: Mapping[bytes, Role] = {}
    if others and group.roles.get(user_id) is Role.OWNER:
        heir = max(others, key=lambda member: (member.role, -member.joined_revision))
        heirs = {heir.user_id: Role.OWNER}
    return Revision(group.profile, leaving=(user_id,), changing=heirs)
