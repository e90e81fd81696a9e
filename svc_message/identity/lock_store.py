"""The registration lock in the row of its account."""

from dataclasses import dataclass, field
from datetime import datetime

from mesh.caller import Caller
from mesh.ids import slot_of
from svc_message.identity.slot_store import SlotStore, by, demand_linked
from svc_message.model import Outcome

_SET = "SELECT set_lock($1, $2, $3, $4, $5, $6) AS outcome"
_TRY = "SELECT outcome, salt, lock_hash, retry_at FROM try_lock($1, $2, $3, $4)"
_PASS = "SELECT pass_lock($1, $2) AS outcome"  # noqa: S105  no password
_TOO_MANY = 52


@dataclass(frozen=True, slots=True)
class StoredLock:
    """What a PIN is compared with."""

    salt: bytes
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tried:
    """What stands between a PIN and the account: a lock, a time to wait, or nothing."""

    lock: StoredLock | None = None
    retry_at: datetime | None = None


class LockStore(SlotStore):
    """The lock of each account."""

    async def put(self, caller: Caller, lock: StoredLock | None) -> None:
        """Set or remove the lock. Raises DeviceRevoked."""
        columns = (None, None) if lock is None else (lock.salt, lock.digest)
        row = await self._ask(slot_of(caller.user_id), _SET, *by(caller), *columns)
        demand_linked(row["outcome"])

    async def try_once(self, user_id: bytes, *, costs: bool, tries: int) -> Tried:
        """What to compare with; `costs` takes a try before anybody knows the result."""
        row = await self._ask(slot_of(user_id), _TRY, user_id, costs, tries)
        if row["outcome"] == _TOO_MANY:
            return Tried(retry_at=row["retry_at"])
        if row["outcome"] != Outcome.DONE or row["lock_hash"] is None:
            return Tried()
        return Tried(StoredLock(row["salt"], row["lock_hash"]))

    async def passed(self, user_id: bytes) -> None:
        """Give all tries back."""
        await self._ask(slot_of(user_id), _PASS, user_id)
