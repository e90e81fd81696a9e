"""What a person decides for the own account: profile, privacy, blocks, silence."""

from dataclasses import astuple, dataclass
from datetime import datetime
from enum import IntEnum

from mesh.caller import Caller
from mesh.errors import InvalidArgument
from svc_message.conversations import direct_conversation
from svc_message.identity.personal_store import PersonalStore

_MOST_BLOCKED = 10_000
_MOST_MUTED = 10_000


class Audience(IntEnum):
    """Who may do something; a contact is someone to whom the account's owner has ever sent."""

    EVERYONE = 1
    CONTACTS = 2
    NOBODY = 3


class LastSeen(IntEnum):
    """How exact the time of somebody's last presence is to others."""

    MINUTE = 1
    HOUR = 2
    DAY = 3

    @property
    def seconds(self) -> int:
        """To how many seconds the time is rounded down."""
        return (60, 3600, 86400)[self - 1]


def may(audience: int, *, is_contact: bool) -> bool:
    """Whether somebody belongs to an audience."""
    return audience == Audience.EVERYONE or (audience == Audience.CONTACTS and is_contact)


@dataclass(frozen=True, slots=True)
class Privacy:
    """Who may find an account, add it to groups, see it online; None leaves a choice as it is."""

    by_handle: Audience | None = None
    by_number: Audience | None = None
    to_groups: Audience | None = None
    presence: Audience | None = None
    last_seen: LastSeen | None = None


class Personal:
    """Stores choices. Each call raises DeviceRevoked, InvalidArgument or Unavailable."""

    def __init__(self, store: PersonalStore) -> None:
        self._store = store

    async def set_profile(self, caller: Caller, profile: bytes) -> None:
        """Replace the profile, which is a ciphertext; from the primary alone."""
        caller.demand_primary()
        await self._store.set_profile(caller, profile)

    async def profile_of(self, user_id: bytes, reader: Caller) -> bytes:
        """The profile; empty if there is none, or none for this reader."""
        return await self._store.profile_of(user_id, reader.user_id)

    async def set_privacy(self, caller: Caller, privacy: Privacy) -> None:
        """Choose who may do what; from the primary alone."""
        caller.demand_primary()
        await self._store.set_privacy(caller, *astuple(privacy))

    async def block(self, caller: Caller, user_id: bytes) -> None:
        """Keep the account's direct messages away; there need not be such an account."""
        if user_id == caller.user_id:
            raise _invalid("user_id", "another account")
        if not await self._store.block(caller, user_id, most=_MOST_BLOCKED):
            raise _invalid("user_id", f"at most {_MOST_BLOCKED} blocked accounts")

    async def unblock(self, caller: Caller, user_id: bytes) -> None:
        """End a block, if there is one."""
        await self._store.unblock(caller, user_id)

    async def blocked(self, caller: Caller) -> list[bytes]:
        """Whom the caller has blocked."""
        return await self._store.blocked(caller)

    async def mute(self, caller: Caller, peer_id: bytes, until: datetime | None) -> None:
        """Silence the direct chat with the peer until then; None ends the silence."""
        conversation_id, _ = direct_conversation(caller.user_id, peer_id)
        await self._mute(caller, conversation_id, until)

    async def mute_group(self, caller: Caller, group_id: bytes, until: datetime | None) -> None:
        """Silence the group until then; None ends the silence."""
        await self._mute(caller, group_id, until)

    async def _mute(self, caller: Caller, conversation_id: bytes, until: datetime | None) -> None:
        if not await self._store.mute(caller, conversation_id, until, most=_MOST_MUTED):
            raise _invalid("conversation", f"at most {_MOST_MUTED} muted conversations")


def _invalid(name: str, allowed: str) -> InvalidArgument:
    return InvalidArgument(
        f"{name} is not as it has to be", metadata={"field": name, "allowed": allowed}
    )
