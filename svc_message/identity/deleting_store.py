"""What is left of an account that ends, on every shard."""

from dataclasses import dataclass
from datetime import timedelta

from mesh.caller import Caller
from mesh.ids import slot_of
from mesh.postgres import Connection
from svc_message.identity.model import EndedSession
from svc_message.identity.slot_store import SlotStore, by, demand_linked
from svc_message.identity.store import ended_sessions
from svc_message.model import Outcome
from svc_message.shards.directory import SlotElsewhere
from svc_message.shards.slot_rows import remove_account

_BEGIN = "SELECT outcome, devices, epochs FROM begin_deletion($1, $2, $3, $4)"
_DELETED = "SELECT user_id, handle, number_hash FROM deleted_accounts($1, $2)"
_CHATS = "SELECT conversation_id, slot, peer_id, is_pending FROM conversations_of($1, $2)"
_FORGET_THREAD = "SELECT forget_thread($1, $2, $3) AS outcome"
_FORGET_CONVERSATION = "SELECT forget_conversation($1, $2) AS outcome"
_FORGET_BLOCKS = "SELECT forget_blocks($1)"


@dataclass(frozen=True, slots=True)
class DeletedAccount:
    """An account whose end has begun."""

    user_id: bytes
    handle: str | None
    number_hash: bytes | None


@dataclass(frozen=True, slots=True)
class EndedChat:
    """A chat of such an account; pending while copies are on their way to the peer."""

    conversation_id: bytes
    slot: int
    peer_id: bytes
    is_pending: bool


class DeletingStore(SlotStore):
    """Ends accounts, step by step. The calls that name a shard raise STORE_ERRORS."""

    async def begin(self, caller: Caller) -> list[EndedSession]:
        """Let the caller's account be gone for everybody. Raises DeviceRevoked."""
        row = await self._ask(slot_of(caller.user_id), _BEGIN, *by(caller))
        demand_linked(row["outcome"])
        return ended_sessions(caller.user_id, row)

    async def deleted(
        self, shard: str, *, older_than: timedelta, limit: int
    ) -> list[DeletedAccount]:
        """Accounts on the shard whose end has begun."""
        rows = await self._on_shard(shard, _DELETED, older_than, limit)
        return [DeletedAccount(*row) for row in rows]

    async def chats(self, shard: str, user_id: bytes, *, limit: int) -> list[EndedChat]:
        """Chats of the account that have their home on the shard; the pending ones last."""
        return [EndedChat(*row) for row in await self._on_shard(shard, _CHATS, user_id, limit)]

    async def forget(self, chat: EndedChat) -> None:
        """Remove what the peer has of the chat, then the chat."""
        await self._ask(slot_of(chat.peer_id), _FORGET_THREAD, chat.peer_id, chat.conversation_id)
        await self._ask(chat.slot, _FORGET_CONVERSATION, chat.conversation_id)

    async def forget_blocks(self, shard: str, user_id: bytes) -> None:
        """End the blocks of the account by others on the shard."""
        await self._on_shard(shard, _FORGET_BLOCKS, user_id)

    async def remove(self, user_id: bytes) -> bool:
        """Remove the account's row and all that is found by it."""

        async def work(connection: Connection) -> bool:
            if not await remove_account(connection, slot=slot_of(user_id), user_id=user_id):
                raise SlotElsewhere(Outcome.SLOT_MOVED)
            return True

        return await self._shards.on_slot(slot_of(user_id), work)
