"""What an account has decided, in its own slot; each change asks whether the caller still may."""

from datetime import datetime

from mesh.caller import Caller
from mesh.ids import slot_of
from svc_message.identity.slot_store import SlotStore, by, demand_linked

_SET_PROFILE = "SELECT set_profile($1, $2, $3, $4, $5) AS outcome"
_GET_PROFILE = "SELECT outcome, profile FROM get_profile($1, $2, $3)"
_SET_PRIVACY = "SELECT set_privacy($1, $2, $3, $4, $5, $6, $7, $8, $9) AS outcome"
_SET_BLOCK = "SELECT set_block($1, $2, $3, $4, $5, $6, $7) AS outcome"
_LIST_BLOCKED = "SELECT outcome, blocked FROM list_blocked($1, $2, $3, $4)"
_SET_MUTE = "SELECT set_mute($1, $2, $3, $4, $5, $6, $7) AS outcome"
_TOO_MANY = 53


class PersonalStore(SlotStore):
    """Choices of accounts. Each change raises DeviceRevoked if the caller's token is outdated."""

    async def set_profile(self, caller: Caller, profile: bytes) -> None:
        await self._change(caller, _SET_PROFILE, profile)

    async def profile_of(self, user_id: bytes, reader_id: bytes) -> bytes:
        """The profile; empty if there is none, or the reader is blocked."""
        row = await self._ask(slot_of(user_id), _GET_PROFILE, user_id, reader_id)
        profile: bytes | None = row["profile"]
        return profile or b""

    async def set_privacy(self, caller: Caller, *choices: int | None) -> None:
        """In the order of the function's arguments; None leaves a choice as it is."""
        await self._change(caller, _SET_PRIVACY, *choices)

    async def block(self, caller: Caller, user_id: bytes, *, most: int) -> bool:
        """Block; False if so many are blocked."""
        return await self._change(caller, _SET_BLOCK, user_id, True, most) != _TOO_MANY

    async def unblock(self, caller: Caller, user_id: bytes) -> None:
        await self._change(caller, _SET_BLOCK, user_id, False, 0)

    async def blocked(self, caller: Caller) -> list[bytes]:
        row = await self._ask(slot_of(caller.user_id), _LIST_BLOCKED, *by(caller))
        demand_linked(row["outcome"])
        return row["blocked"] or []

    async def mute(
        self, caller: Caller, conversation_id: bytes, until: datetime | None, *, most: int
    ) -> bool:
        """Mute or, with None, unmute; False if so many are muted."""
        return await self._change(caller, _SET_MUTE, conversation_id, until, most) != _TOO_MANY

    async def _change(self, caller: Caller, statement: str, *arguments: object) -> int:
        row = await self._ask(slot_of(caller.user_id), statement, *by(caller), *arguments)
        outcome: int = row["outcome"]
        demand_linked(outcome)
        return outcome
