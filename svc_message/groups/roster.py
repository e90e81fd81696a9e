"""Who gets a group's messages: the members at a revision, which no later change can alter."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.telemetry import Telemetry
from svc_message.groups.message_store import GroupMessageStore
from svc_message.groups.requests import Recipient, Run
from svc_message.lanes import Lanes
from svc_message.model import Outcome, Refusal
from svc_message.requests import Request
from svc_message.results import PlainResult
from svc_message.shards.directory import Shards

_MOST_REMEMBERED = 200_000  # members of all groups together


@dataclass(slots=True, kw_only=True)
class RosterRequest(Request):
    """The members at a message. `slot` is the group's."""

    group_id: bytes
    seq: int


class Roster:
    """Reads the recipients of runs, and remembers them."""

    def __init__(
        self, shards: Shards, stores: Mapping[str, GroupMessageStore], *, telemetry: Telemetry
    ) -> None:
        self._stores = stores
        self._known: OrderedDict[tuple[bytes, int], list[Recipient]] = OrderedDict()
        self._remembered = 0
        self._lanes: Lanes[RosterRequest] = Lanes(
            "roster", self._read, shards, per_shard=1, telemetry=telemetry, most_batched=8
        )

    async def recipients(self, run: Run) -> Sequence[Recipient] | None:
        """Who gets the run, by slot; None if it cannot be read now."""
        key = run.group_id, run.messages[0].revision
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        read: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request = RosterRequest(
            slot=run.messages[0].slot,
            done=lambda _request, result: read.set_result(result),
            group_id=run.group_id,
            seq=run.first_seq,
        )
        self._lanes.put(request, run.group_id)
        result: PlainResult | Refusal = await read
        if isinstance(result, Refusal) or result.outcome != Outcome.DONE:
            return None
        self._remember(key, result.row)
        recipients: list[Recipient] = result.row
        return recipients

    async def run(self) -> None:
        """Work until cancelled."""
        await self._lanes.run()

    async def _read(self, shard: str, requests: Sequence[RosterRequest]) -> Sequence[PlainResult]:
        store = self._stores[shard]
        return [await store.recipients(one.slot, one.group_id, one.seq) for one in requests]

    def _remember(self, key: tuple[bytes, int], recipients: list[Recipient]) -> None:
        self._known[key] = recipients
        self._remembered += len(recipients)
        while self._remembered > _MOST_REMEMBERED and len(self._known) > 1:
            _, forgotten = self._known.popitem(last=False)
            self._remembered -= len(forgotten)
