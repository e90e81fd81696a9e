"""The device queues as the sessions use them: open, page, ack, read, compare, receipts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from mesh.failpoints import Failpoints
from mesh.telemetry import Telemetry
from svc_message.lanes import Lanes
from svc_message.relay import Relay
from svc_message.requests import (
    AckRequest,
    HeadRequest,
    OpenRequest,
    PageRequest,
    ReadRequest,
    ReceiptChange,
    ReceiptsRequest,
    Request,
)
from svc_message.results import AckResult, PageResult, PlainResult, ReceiptEffects, ReceiptRow
from svc_message.routing import Router
from svc_message.shards.directory import Shards
from svc_message.store import ShardStore


class Inbox:
    """The lanes of everything that concerns one user's queues."""

    def __init__(
        self,
        shards: Shards,
        stores: dict[str, ShardStore],
        router: Router,
        relay: Relay,
        *,
        lanes_per_shard: int,
        telemetry: Telemetry,
        failpoints: Failpoints,
    ) -> None:
        self._stores = stores
        self._router = router
        self._relay = relay
        self._failpoints = failpoints
        self._is_traced = telemetry.is_on

        def lanes(kind: str, run: Callable[..., Awaitable[Sequence[Any]]]) -> Lanes[Any]:
            return Lanes(kind, run, shards, per_shard=lanes_per_shard, telemetry=telemetry)

        self._lanes: dict[type[Request], Lanes[Any]] = {
            OpenRequest: lanes("open", self._open),
            AckRequest: lanes("ack", self._ack),
            ReadRequest: lanes("read", self._read),
            PageRequest: lanes("page", self._page),
            HeadRequest: lanes("heads", self._heads),
            ReceiptsRequest: lanes("receipts", self._receipts),
        }

    def ask(
        self,
        request: OpenRequest
        | AckRequest
        | ReadRequest
        | PageRequest
        | HeadRequest
        | ReceiptsRequest,
    ) -> None:
        """Queue the request; its `done` is called once."""
        self._lanes[type(request)].put(request, request.user_id)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind, lanes in self._lanes.items():
                tasks.create_task(lanes.run(), name=f"{kind.__name__}-lanes")

    async def drained(self) -> None:
        """Return when every request is answered."""
        for lanes in self._lanes.values():
            await lanes.drained()

    async def _open(self, shard: str, opens: Sequence[OpenRequest]) -> Sequence[PlainResult]:
        return await self._stores[shard].open(opens)

    async def _page(self, shard: str, pages: Sequence[PageRequest]) -> Sequence[PageResult]:
        results = await self._stores[shard].page(pages)
        if self._is_traced:
            await self._find_traces(shard, pages, results)
        return results

    async def _find_traces(
        self, shard: str, pages: Sequence[PageRequest], results: Sequence[PageResult]
    ) -> None:
        """Learn which of the messages were sampled when they were sent, maybe days ago."""
        asked = {
            (page.slot, row["message_id"])
            for page, result in zip(pages, results, strict=True)
            for row in result.rows
            if row["pos"] is not None
        }
        found = await self._stores[shard].traces.find(list(asked)) if asked else {}
        if found:
            for page, result in zip(pages, results, strict=True):
                result.traces = {id_: at for (slot, id_), at in found.items() if slot == page.slot}

    async def _heads(self, shard: str, heads: Sequence[HeadRequest]) -> Sequence[PlainResult]:
        return await self._stores[shard].heads(heads)

    async def _receipts(
        self, shard: str, requests: Sequence[ReceiptsRequest]
    ) -> Sequence[PageResult]:
        return await self._stores[shard].receipts_after(requests)

    async def _ack(self, shard: str, acks: Sequence[AckRequest]) -> Sequence[AckResult]:
        # One item a device: its greatest position says all of them.
        greatest: dict[tuple[bytes, int], AckRequest] = {}
        for ack in acks:
            known = greatest.setdefault((ack.user_id, ack.device_id), ack)
            if known.up_to_pos < ack.up_to_pos:
                greatest[ack.user_id, ack.device_id] = ack
        self._failpoints.hit("ack.before_commit")
        results, effects = await self._stores[shard].ack(list(greatest.values()))
        self._failpoints.hit("ack.after_commit")
        self._send_on(_traced(effects, greatest.values()) if self._is_traced else effects)
        by_device = dict(zip(greatest, results, strict=True))
        return [by_device[ack.user_id, ack.device_id] for ack in acks]

    async def _read(self, shard: str, reads: Sequence[ReadRequest]) -> Sequence[PlainResult]:
        results, effects = await self._stores[shard].mark_read(reads)
        self._send_on(effects)
        return results

    def _send_on(self, effects: ReceiptEffects) -> None:
        for row in effects.merged:
            self._router.tell(row)
        for change in effects.entries:
            self._relay.carry_receipt(change)


def _traced(effects: ReceiptEffects, acks: Iterable[AckRequest]) -> ReceiptEffects:
    """The effects, each with the traces of the messages whose acks it comes from."""
    told: list[ReceiptRow | ReceiptChange] = [*effects.merged, *effects.entries]
    for ack in acks:
        sampled = zip(ack.traces, ack.authors, ack.owners, strict=False)
        for at, author_id, owner_id in sampled:
            for effect in told:
                if effect.user_id == owner_id and effect.peer_id == ack.user_id:
                    effect.traces = [*effect.traces, at]
                    if isinstance(effect, ReceiptChange):
                        effect.authors = [*effect.authors, author_id]
    return effects
