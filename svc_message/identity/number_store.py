"""The rows of numbers and their codes, each in the slot of its number."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mesh.errors import Unavailable
from mesh.ids import SLOTS, slot_of
from svc_message.identity.slot_store import SlotStore
from svc_message.model import Outcome

_FIND = (
    "SELECT outcome, user_id FROM find_numbers(ARRAY[$1::smallint], ARRAY[$1], ARRAY[$2::bytea])"
)
_CLAIM = "SELECT outcome, user_id FROM claim_number($1, $2, $3)"
_MARK = "SELECT mark_number($1, $2, $3, $4) AS outcome"
_RELEASE = "SELECT release_number($1, $2, $3) AS outcome"
_SET = "SELECT outcome, before FROM set_number($1, $2, $3)"
_UNCONFIRMED = "SELECT number_hash, user_id FROM unconfirmed_numbers($1, $2)"

_NEW_CODE = "SELECT outcome, expires_at, next_at FROM new_code($1, $2, $3, $4, $5, $6, $7)"
_FORGET_CODE = "SELECT forget_code($1, $2, $3) AS outcome"
_TRY_CODE = "SELECT outcome, salt, code_hash FROM try_code($1, $2, $3)"
_USE_CODE = "SELECT use_code($1, $2, $3, $4) AS outcome"
_REMOVE_CODE = "SELECT remove_code($1, $2) AS outcome"
_REMOVE_OLD_CODES = "SELECT remove_old_codes()"


class NumberStore(SlotStore):
    """Whose a number is."""

    async def find(self, number: bytes) -> bytes | None:
        """The account that has claimed the number."""
        row = await self._ask(slot_of_number(number), _FIND, number)
        owner: bytes | None = row["user_id"]
        return owner

    async def claim(self, number: bytes, user_id: bytes) -> bytes:
        """Give the number to the account unless another has it; return which has it now."""
        row = await self._ask(slot_of_number(number), _CLAIM, number, user_id)
        owner: bytes = row["user_id"]
        return owner

    async def mark(self, number: bytes, user_id: bytes, *, confirmed: bool) -> None:
        """Note whether the account is known to say that it has the number."""
        await self._ask(slot_of_number(number), _MARK, number, user_id, confirmed)

    async def release(self, number: bytes, user_id: bytes) -> None:
        """Free the number if the account has it."""
        await self._ask(slot_of_number(number), _RELEASE, number, user_id)

    async def set_of(self, user_id: bytes, number: bytes) -> bytes | None:
        """Let the account say that it has the number; return what it said before."""
        row = await self._ask(slot_of(user_id), _SET, user_id, number)
        if row["outcome"] == Outcome.GONE:
            raise Unavailable("the account is about to be gone")
        before: bytes | None = row["before"]
        return before

    async def unconfirmed(
        self, shard: str, *, older_than: timedelta, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Numbers on the shard and who claimed them. Raises STORE_ERRORS."""
        rows = await self._on_shard(shard, _UNCONFIRMED, older_than, limit)
        return [(row["number_hash"], row["user_id"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Issued:
    """How long a new code counts, and when there may be another."""

    expires_at: datetime
    next_at: datetime


@dataclass(frozen=True, slots=True)
class StoredCode:
    """What a code is compared with."""

    salt: bytes
    digest: bytes = field(repr=False)


class CodeStore(SlotStore):
    """The code of each number."""

    async def put(
        self,
        number: bytes,
        code: StoredCode,
        *,
        lifetime: timedelta,
        pause: timedelta,
        most_a_day: int,
    ) -> Issued | datetime:
        """Store the number's next code, or return when there may be one."""
        arguments = (code.salt, code.digest, lifetime, pause, most_a_day)
        row = await self._ask(slot_of_number(number), _NEW_CODE, number, *arguments)
        next_at: datetime = row["next_at"]
        if row["outcome"] != Outcome.DONE:
            return next_at
        return Issued(row["expires_at"], next_at)

    async def forget(self, number: bytes, code: StoredCode) -> None:
        """Let there be another at once: this one was not sent."""
        await self._ask(slot_of_number(number), _FORGET_CODE, number, code.digest)

    async def try_once(self, number: bytes, *, tries: int) -> StoredCode | None:
        """What to compare with, at the cost of a try; None if there is none or no try is left."""
        row = await self._ask(slot_of_number(number), _TRY_CODE, number, tries)
        return StoredCode(row["salt"], row["code_hash"]) if row["outcome"] == Outcome.DONE else None

    async def use(self, number: bytes, code: StoredCode, *, for_key: bytes) -> bool:
        """Use the code up for this key, and give its try back; False if it is another's."""
        row = await self._ask(slot_of_number(number), _USE_CODE, number, code.digest, for_key)
        return bool(row["outcome"] == Outcome.DONE)

    async def remove(self, number: bytes) -> None:
        """Remove what is kept of the number's code."""
        await self._ask(slot_of_number(number), _REMOVE_CODE, number)

    async def remove_old(self, shard: str) -> None:
        """Remove the shard's codes that do not count any more. Raises STORE_ERRORS."""
        await self._on_shard(shard, _REMOVE_OLD_CODES)


def slot_of_number(number: bytes) -> int:
    """mesh.ids.slot_of the number, of which there is only the hash."""
    return int.from_bytes(number[:8], "big") % SLOTS
