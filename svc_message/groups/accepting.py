"""Accepting for groups: a message and its entry become durable, and the sender is answered.

Who gets it is the fan-out's business, and takes the sender no time.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from mesh.failpoints import Failpoints
from mesh.metrics import ACCEPTED, REFUSED
from mesh.telemetry import Telemetry
from svc_message.accepting import REFUSALS, FirstAnswer
from svc_message.groups.fanning import FanOut
from svc_message.groups.message_store import GroupMessageStore
from svc_message.groups.requests import GroupMessage, GroupSend, GroupSendResult
from svc_message.lanes import Lanes
from svc_message.media.references import References
from svc_message.model import Outcome, Refusal
from svc_message.results import PlainResult
from svc_message.shards.directory import Shards

_REFUSALS = {
    **REFUSALS,
    Outcome.GROUP_UNKNOWN: Refusal("GROUP_UNKNOWN"),
    Outcome.ROLE_TOO_LOW: Refusal("CALLER_NOT_ALLOWED"),
    Outcome.GROUP_AHEAD: Refusal(
        "FIELD_INVALID", {"field": "revision", "allowed": "at most the group's"}
    ),
}

# Takes the send, where it stands if it was ever accepted, and why this try was refused if it was.
# Neither: the group has changed, see the send's `changes`.
GroupAnswer = Callable[[GroupSend, FirstAnswer | None, Refusal | None], None]


class GroupAccepting:
    """The accept lanes of groups and what follows from them."""

    def __init__(
        self,
        shards: Shards,
        stores: Mapping[str, GroupMessageStore],
        fan_out: FanOut,
        references: References,
        *,
        lanes_per_shard: int,
        telemetry: Telemetry,
        failpoints: Failpoints,
    ) -> None:
        self._stores = stores
        self._fan_out = fan_out
        # Takes what is accepted, once it is answered; it never waits.
        self.carry: Callable[[GroupMessage], None] = fan_out.carry
        self._references = references
        self._failpoints = failpoints
        self._accepted = telemetry.counter(ACCEPTED)
        self._refused = telemetry.counter(REFUSED)
        self._sends: Lanes[GroupSend] = Lanes(
            "accept-group", self._accept, shards, per_shard=lanes_per_shard, telemetry=telemetry
        )
        self._stale: Lanes[GroupSend] = Lanes(
            "changes", self._changes, shards, per_shard=1, telemetry=telemetry
        )

    def accept(self, send: GroupSend, answer: GroupAnswer) -> None:
        """Queue the send; `answer` is called once, after its commit."""
        send.done = self._done
        send.origin = (send.origin, answer)
        if self._fan_out.is_refusing:
            send.refusal = Outcome.REFUSED
        self._sends.put(send, send.group_id)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sends.run(), name="accept-group-lanes")
            tasks.create_task(self._stale.run(), name="changes-lanes")

    async def drained(self) -> None:
        """Return when every send is answered."""
        await self._sends.drained()
        await self._stale.drained()

    async def _accept(self, shard: str, sends: Sequence[GroupSend]) -> Sequence[GroupSendResult]:
        await self._references.note_those_of(shard, sends)
        self._failpoints.hit("accept_group.before_commit")
        results = await self._stores[shard].accept(sends)
        self._failpoints.hit("accept_group.after_commit")
        return results

    async def _changes(self, shard: str, sends: Sequence[GroupSend]) -> Sequence[PlainResult]:
        return [await self._stores[shard].changes(send) for send in sends]

    def _done(self, send: GroupSend, result: GroupSendResult | Refusal) -> None:
        if isinstance(result, Refusal):
            self._answer(send, None, result)
        elif result.outcome == Outcome.DONE:
            self._answer(send, _first(result), None)
            self.carry(_message(send, result))
        elif result.outcome == Outcome.REPEATED:
            self._answer(send, _first(result), None)
        elif result.outcome == Outcome.CONFLICT:
            self._answer(send, _first(result), _REFUSALS[Outcome.CONFLICT])
        elif result.outcome == Outcome.GROUP_CHANGED:
            send.done = self._told
            self._stale.put(send, send.group_id)
        else:
            self._answer(send, None, _REFUSALS[Outcome(result.outcome)])

    def _told(self, send: GroupSend, result: PlainResult | Refusal) -> None:
        if isinstance(result, Refusal):
            self._answer(send, None, result)
        elif result.outcome == Outcome.DONE:
            send.changes = result.row
            self._answer(send, None, None)
        else:
            self._answer(send, None, _REFUSALS[Outcome(result.outcome)])

    def _answer(self, send: GroupSend, first: FirstAnswer | None, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._refused.add(1, {"reason": refusal.reason})
        elif first is not None:
            self._accepted.add(1)
        else:
            self._refused.add(1, {"reason": "GROUP_CHANGED"})
        answer: GroupAnswer
        send.origin, answer = send.origin
        answer(send, first, refusal)


def _first(result: GroupSendResult) -> FirstAnswer:
    assert result.accepted_at is not None  # noqa: S101  what is accepted has a time
    return FirstAnswer(result.message_id, result.seq, result.accepted_at)


def _message(send: GroupSend, result: GroupSendResult) -> GroupMessage:
    assert result.accepted_at is not None  # noqa: S101
    return GroupMessage(
        group_id=send.group_id,
        slot=send.slot,
        seq=result.seq,
        revision=result.revision,
        accepted_at=result.accepted_at,
        sender_id=send.sender_id,
        sender_device_id=send.sender_device_id,
        last_sender=result.last_sender,
        sender_prev=result.sender_prev,
        message_id=result.message_id,
        type=send.type,
        body=send.body,
        home=result.shard,
        trace=send.traces[0] if send.traces else b"",
    )
