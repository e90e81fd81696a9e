"""What finding asks of the shards: many accounts a call, a call a shard."""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.ids import slot_of
from svc_message.identity.contact_store import ContactStore
from svc_message.identity.number_store import slot_of_number

_FIND_HANDLE = "SELECT outcome, user_id FROM find_handle($1, $2)"
_FIND_NUMBERS = "SELECT outcome, user_id FROM find_numbers($1, $2, $3) ORDER BY item"
_AUDIENCES = "SELECT outcome, audience FROM audiences($1, $2, $3, $4, $5) ORDER BY item"
_GROUP_AUDIENCES = "SELECT outcome, audience FROM group_audiences($1, $2, $3, $4) ORDER BY item"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An account that is looked for: by its handle, or by this number."""

    user_id: bytes
    number: bytes | None


class FindingStore(ContactStore):
    """Reads of many accounts."""

    async def handle_owner(self, handle: str) -> bytes | None:
        """The account that has the handle."""
        key = handle.encode()
        owner: bytes | None = (await self._ask(slot_of(key), _FIND_HANDLE, handle))["user_id"]
        return owner

    async def number_owners(self, numbers: Sequence[bytes]) -> list[bytes | None]:
        """The account of each number."""
        slots = [slot_of_number(number) for number in numbers]
        return [row["user_id"] for row in await self._ask_each(_FIND_NUMBERS, slots, numbers)]

    async def audiences(self, caller: bytes, wanted: Sequence[Wanted]) -> list[int]:
        """Who may find each account; nobody where there is none, or it has blocked the caller."""
        users = [one.user_id for one in wanted]
        numbers = [one.number for one in wanted]
        slots = [slot_of(user) for user in users]
        rows = await self._ask_each(_AUDIENCES, slots, users, numbers, last=[caller])
        return [row["audience"] for row in rows]

    async def group_audiences(self, caller: bytes, users: Sequence[bytes]) -> list[int]:
        """Who may add each account to groups; nobody where it has blocked the caller."""
        slots = [slot_of(user) for user in users]
        rows = await self._ask_each(_GROUP_AUDIENCES, slots, users, last=[caller])
        return [row["audience"] for row in rows]

    async def have_sent_to(self, user_id: bytes, senders: Sequence[bytes]) -> list[bool]:
        """Whether each of these accounts has ever sent to the user."""
        return await self.have_sent([(sender, user_id) for sender in senders])
