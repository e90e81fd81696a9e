"""Who finds whom: by handle, by number, or many contacts at once.

An account that does not exist, one that is hidden from the caller and one that has blocked the
caller are answered alike in code and size, and by the same questions to as many shards: an account
is asked for even where there is none.
"""

import hashlib
from collections.abc import Sequence

from mesh.caller import Caller
from mesh.errors import InvalidArgument
from mesh.ids import ID_BYTES
from svc_message.identity.budget import LookUpBudget
from svc_message.identity.finding_store import FindingStore, Wanted
from svc_message.identity.model import HandleUnknown, is_handle
from svc_message.identity.numbers import number_hash
from svc_message.identity.personal import may


class Finding:
    """Finds accounts for others, within their budgets."""

    def __init__(self, store: FindingStore, budget: LookUpBudget) -> None:
        self._store = store
        self._budget = budget

    async def check_caller(self, caller: Caller) -> None:
        """Return if the caller may act. Raises DeviceRevoked, Unavailable."""
        await self._store.check_caller(caller)

    async def look_up(self, caller: bytes, *, handle: str = "", phone_number: str = "") -> bytes:
        """The account with this handle or this number.

        Raises HandleUnknown, RateLimited, InvalidArgument, Unavailable.
        """
        if phone_number:
            if handle:
                raise InvalidArgument(
                    "a handle or a number", metadata={"field": "handle", "allowed": "one of both"}
                )
            number = number_hash(phone_number)
            await self._budget.spend(caller, [number])
            [owner] = await self._store.number_owners([number])
        elif is_handle(handle):
            number = None
            await self._budget.spend(caller, [handle.encode()])
            owner = await self._store.handle_owner(handle)
        else:
            raise HandleUnknown("nobody is found by this")
        [found] = await self._visible(caller, [_wanted(owner, handle.encode(), number)])
        if found is None:
            raise HandleUnknown("nobody is found by this")
        return found

    async def discover(self, caller: bytes, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """Of these hashes of numbers, those whose accounts the caller may find.

        Raises RateLimited, Unavailable.
        """
        numbers = list(dict.fromkeys(hashes))
        if not numbers:
            return {}
        await self._budget.spend(caller, numbers)
        owners = await self._store.number_owners(numbers)
        found = await self._visible(
            caller,
            [_wanted(owner, number, number) for number, owner in zip(numbers, owners, strict=True)],
        )
        return {number: user for number, user in zip(numbers, found, strict=True) if user}

    async def _visible(self, caller: bytes, wanted: Sequence[Wanted]) -> list[bytes | None]:
        """The accounts that exist and may be found by the caller; None in the others' place."""
        audiences = await self._store.audiences(caller, wanted)
        contacts = await self._store.have_sent_to(caller, [one.user_id for one in wanted])
        return [
            one.user_id if one.user_id == caller or may(audience, is_contact=is_contact) else None
            for one, audience, is_contact in zip(wanted, audiences, contacts, strict=True)
        ]


def _wanted(owner: bytes | None, key: bytes, number: bytes | None) -> Wanted:
    if owner is None:
        # Nobody's id, the same each time: its shard takes as long as another's.
        owner = hashlib.sha256(b"nobody" + key).digest()[:ID_BYTES]
    return Wanted(owner, number)
