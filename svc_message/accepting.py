"""Accepting: a send becomes durable and is answered; then its copies go their way."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mesh.failpoints import Failpoints
from mesh.ids import slot_of
from mesh.metrics import ACCEPTED, COPIES, REFUSED
from mesh.telemetry import Telemetry
from svc_message.device_lists import DeviceLists
from svc_message.lanes import Lanes
from svc_message.media.references import References
from svc_message.model import Outcome, Refusal
from svc_message.relay import Relay
from svc_message.requests import AccountRequest, Copy, SendRequest
from svc_message.results import CopyPart, PlainResult, SendResult
from svc_message.routing import Router
from svc_message.shards.directory import Shards
from svc_message.store import ShardStore
from svc_message.strangers import Strangers
from svc_message.traces import note_traces

_SOON = timedelta(milliseconds=50)
_LATER = timedelta(seconds=1)
_HELD = timedelta(seconds=30)

REFUSALS = {
    Outcome.CONFLICT: Refusal("CLIENT_MESSAGE_ID_CONFLICT"),
    Outcome.PREVIOUS_NOT_ACCEPTED: Refusal("PREVIOUS_NOT_ACCEPTED", {}, _SOON),
    Outcome.RECIPIENT_FULL: Refusal("RECIPIENT_FULL", {}, _HELD),
    Outcome.REFUSED: Refusal("OVERLOADED", {}, _LATER),
    Outcome.GONE: Refusal("RECIPIENT_UNKNOWN"),
}


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """Where a message stands, whether it was accepted by this try or by an earlier one."""

    message_id: bytes
    seq: int
    accepted_at: datetime


# Takes the send, where it stands if it was ever accepted, and why this try was refused if it was.
# Neither: it names other devices than it must, see its mismatch.
Answer = Callable[[SendRequest, FirstAnswer | None, Refusal | None], None]


class Accepting:
    """The accept lanes and what follows from them."""

    def __init__(
        self,
        shards: Shards,
        stores: dict[str, ShardStore],
        router: Router,
        relay: Relay,
        *,
        lanes_per_shard: int,
        device_lists_fresh: timedelta,
        first_contacts_a_day: int,
        references: References,
        telemetry: Telemetry,
        failpoints: Failpoints,
    ) -> None:
        self._stores = stores
        self._router = router
        self._relay = relay
        self._references = references
        self._failpoints = failpoints
        self._accepted = telemetry.counter(ACCEPTED)
        self._refused = telemetry.counter(REFUSED)
        self._copied = telemetry.counter(COPIES)
        self._sends: Lanes[SendRequest] = Lanes(
            "accept",
            self._accept,
            shards,
            per_shard=lanes_per_shard,
            telemetry=telemetry,
            on_unseen=self._check,
        )
        self._checks: Lanes[AccountRequest] = Lanes(
            "exist", self._exist, shards, per_shard=1, telemetry=telemetry
        )
        self._devices = DeviceLists(shards, stores, fresh=device_lists_fresh, telemetry=telemetry)
        self._strangers = Strangers(shards, stores, most=first_contacts_a_day, telemetry=telemetry)

    def accept(self, send: SendRequest, answer: Answer) -> None:
        """Queue the send; `answer` is called once, after its commit."""
        send.done = self._done
        send.origin = (send.origin, answer)
        if self._relay.refuses(send.recipient_slot):
            send.refusal = Outcome.REFUSED
        self._sends.put(send, send.conversation_id)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sends.run(), name="accept-lanes")
            tasks.create_task(self._checks.run(), name="exist-lanes")
            tasks.create_task(self._devices.run(), name="devices-lanes")
            tasks.create_task(self._strangers.run(), name="strangers")

    async def drained(self) -> None:
        """Return when every send is answered."""
        await self._checks.drained()
        await self._devices.drained()
        await self._strangers.drained()
        await self._sends.drained()

    async def _accept(self, shard: str, sends: Sequence[SendRequest]) -> Sequence[SendResult]:
        ready = [send for send in sends if self._is_ready(send)]
        if len(ready) == len(sends):
            return await self._commit(shard, sends)
        results = dict(zip(map(id, ready), await self._commit(shard, ready), strict=True))
        return [results.get(id(send)) or SendResult(Outcome.RECIPIENT_UNSEEN) for send in sends]

    def _is_ready(self, send: SendRequest) -> bool:
        """Whether the devices that the send names are compared with those that are linked."""
        if not send.is_shared and send.mismatch is None and not self._devices.compare(send):
            return False
        if send.mismatch and not send.refusal:
            send.refusal = Outcome.DEVICE_MISMATCH
        return True

    async def _commit(self, shard: str, sends: Sequence[SendRequest]) -> Sequence[SendResult]:
        if not sends:
            return []
        await self._references.note_those_of(shard, sends)
        await note_traces(
            self._stores[shard].traces, sends, [send.recipient_slot for send in sends]
        )
        self._failpoints.hit("accept.before_commit")
        results = await self._stores[shard].accept(sends)
        self._failpoints.hit("accept.after_commit")
        return results

    async def _exist(self, shard: str, checks: Sequence[AccountRequest]) -> Sequence[PlainResult]:
        return await self._stores[shard].accounts_exist(checks)

    def _done(self, send: SendRequest, result: SendResult | Refusal) -> None:
        if isinstance(result, Refusal):
            self._answer(send, None, result)
        elif result.outcome == Outcome.DONE:
            self._answer(send, _first(result), None)
            self._failpoints.hit("accept.before_push")
            self._send_on(send, result)
        elif result.outcome == Outcome.REPEATED:
            self._answer(send, _first(result), None)
        elif result.outcome == Outcome.CONFLICT:
            self._answer(send, _first(result), REFUSALS[Outcome.CONFLICT])
        elif result.outcome == Outcome.DEVICE_MISMATCH:
            self._answer(send, None, None)
        else:
            self._answer(send, None, REFUSALS[Outcome(result.outcome)])

    def _send_on(self, send: SendRequest, result: SendResult) -> None:
        for part in result.parts:
            copy = _copy(send, result, part)
            if part.entry_id is not None:
                self._relay.carry_copy(copy)
                continue
            self._copied.add(len(part.places))
            for place in part.places:
                self._router.deliver(copy, place)

    def _check(self, send: SendRequest, go_on: Callable[[Refusal | None], None]) -> None:
        """Ask other shards: which devices there are, or whether there may be such a chat at all."""
        if not send.is_shared and send.mismatch is None:
            self._devices.fetch(send, go_on)
            return
        check = AccountRequest(
            slot=send.recipient_slot,
            done=self._checked,
            origin=(send, go_on),
            user_id=send.recipient_id,
        )
        self._checks.put(check, send.recipient_id)

    def _checked(self, check: AccountRequest, result: PlainResult | Refusal) -> None:
        send, go_on = check.origin
        refusal = result if isinstance(result, Refusal) else REFUSALS.get(Outcome(result.outcome))
        if refusal is not None:
            go_on(refusal)
            return

        def counted(refusal: Refusal | None) -> None:
            send.recipient_known = refusal is None
            go_on(refusal)

        self._strangers.count(send, counted)

    def _answer(
        self, send: SendRequest, first: FirstAnswer | None, refusal: Refusal | None
    ) -> None:
        if refusal is not None:
            self._refused.add(1, {"reason": refusal.reason})
        elif first is not None:
            self._accepted.add(1)
        else:
            self._refused.add(1, {"reason": "DEVICE_MISMATCH"})
        answer: Any
        send.origin, answer = send.origin
        answer(send, first, refusal)


def _first(result: SendResult) -> FirstAnswer:
    assert result.accepted_at is not None  # noqa: S101  what is accepted has a time
    return FirstAnswer(result.message_id, result.seq, result.accepted_at)


def _copy(send: SendRequest, result: SendResult, part: CopyPart) -> Copy:
    assert result.accepted_at is not None  # noqa: S101
    if part.is_own:
        user_id, slot, peer_id = send.sender_id, slot_of(send.sender_id), send.recipient_id
    else:
        user_id, slot, peer_id = send.recipient_id, send.recipient_slot, send.sender_id
    return Copy(
        slot=slot,
        user_id=user_id,
        conversation_id=send.conversation_id,
        prev=part.prev,
        seq=result.seq,
        sent_prev=part.sent_prev,
        accepted_at=result.accepted_at,
        peer_id=peer_id,
        sender_id=send.sender_id,
        sender_device_id=send.sender_device_id,
        message_id=result.message_id,
        bodies=send.own_bodies if part.is_own else send.bodies,
        entry_id=part.entry_id or 0,
        home=result.shard,
        traces=send.traces,
    )
