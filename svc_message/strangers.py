"""How many people an account may write to for the first time in a day.

Asked only where a direct conversation begins, and counted on the sender's shard: exact, whoever
asks. Who shares a group with the recipient is no stranger, for each member sends the others keys.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from mesh.ids import slot_of
from mesh.postgres import STORE_ERRORS
from mesh.telemetry import Telemetry
from svc_message.lanes import Lanes
from svc_message.model import Outcome, Refusal
from svc_message.requests import ContactRequest, SendRequest
from svc_message.results import PlainResult
from svc_message.shards.directory import Shards
from svc_message.store import ShardStore

log = structlog.get_logger(__name__)

Then = Callable[[Refusal | None], None]


class Strangers:
    """Counts first contacts."""

    def __init__(
        self,
        shards: Shards,
        stores: Mapping[str, ShardStore],
        *,
        most: int,
        telemetry: Telemetry,
    ) -> None:
        self._stores = stores
        self._most = most
        self._lanes: Lanes[ContactRequest] = Lanes(
            "first-contact", self._count, shards, per_shard=1, telemetry=telemetry
        )

    def count(self, send: SendRequest, then: Then) -> None:
        """Count the send's recipient; `then` gets None, or why the sender may not write there."""
        if send.is_of_team or send.sender_id == send.recipient_id:
            then(None)
            return

        def take(_request: ContactRequest, result: PlainResult | Refusal) -> None:
            then(result if isinstance(result, Refusal) else self._refusal(result))

        request = ContactRequest(
            slot=slot_of(send.sender_id),
            done=take,
            user_id=send.sender_id,
            recipient_id=send.recipient_id,
        )
        self._lanes.put(request, send.sender_id)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._lanes.run()

    async def drained(self) -> None:
        """Return when nothing is being counted."""
        await self._lanes.drained()

    def _refusal(self, result: PlainResult) -> Refusal | None:
        if result.outcome == Outcome.DONE:
            return None
        if result.outcome == Outcome.TOO_MANY_CONTACTS:
            told = {"limit": "first_contacts", "allowed": str(self._most)}
            return Refusal("RATE_LIMITED", told, result.row["wait"])
        return Refusal("CALLER_NOT_ALLOWED")  # the sender's account has ended

    async def _count(self, shard: str, requests: Sequence[ContactRequest]) -> Sequence[PlainResult]:
        known = await self._in_one_group(requests)
        results = [PlainResult(Outcome.DONE) for _ in requests]
        strangers = [i for i in range(len(requests)) if i not in known]
        if strangers:
            counted = await self._stores[shard].count_first_contacts(
                [requests[i] for i in strangers], self._most
            )
            for i, result in zip(strangers, counted, strict=True):
                results[i] = result
        return results

    async def _in_one_group(self, requests: Sequence[ContactRequest]) -> set[int]:
        """Whose recipient is in a group with them; a shard that is down knows of none."""
        answers = await asyncio.gather(
            *(self._share_groups(store, requests) for store in self._stores.values())
        )
        return set().union(*answers)

    async def _share_groups(
        self, store: ShardStore, requests: Sequence[ContactRequest]
    ) -> set[int]:
        try:
            return await store.share_groups(requests)
        except STORE_ERRORS as error:
            log.warning("groups not looked at", error=type(error).__name__)
            return set()
