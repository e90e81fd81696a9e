"""The rules of sending, sans-IO: what to send next, and what to repeat.

It knows no time but what it is given, no socket and no store.

For each conversation by itself:
1. Sends are tried in the order in which they were queued.
2. `after` names the nearest earlier send that is neither accepted nor given up, as things stand
   when the send is written. So whatever a send's `after` was before, once its target is given up
   it follows what the target followed.
3. A send that is refused for now waits; nothing behind it that is not already on its way is
   written before it is.
4. What was on its way when a stream ended is repeated on the next one, in order.
5. A send that was tried once and is older than 6 days is given up: the mesh forgets after 7.
6. A send that is not sealed (encrypted for the devices of now) waits as one that is refused does.
7. What is behind a send that must be sealed anew is sealed anew with it, and nothing else is sealed
   before it: a device gets messages in the order of their sealing, as it keeps few old chains.
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from whimbrel_client.clock import days_ms

CONFIRMABLE_MS = days_ms(6)

# A send's fields beside its stored bytes: `after`, `first_tried_at`, and the framing of the event.
_OVERHEAD_BYTES = 64


@dataclass(slots=True, eq=False)
class Sending:
    """One send of the queue that is neither accepted nor given up."""

    local_id: int
    conversation: bytes
    client_message_id: bytes
    # Empty until it is sealed.
    send: bytes = b""
    first_tried_at: int | None = None
    # The neighbours in the conversation that are not settled either.
    before: "Sending | None" = field(default=None, repr=False)
    behind: "Sending | None" = field(default=None, repr=False)
    retry_at: float = 0.0
    is_in_flight: bool = False
    # On its way, sealed for other devices than the mesh has named since.
    is_doubtful: bool = False
    # How often deliveries had come when it was sealed.
    sealed_at: int = 0
    # How often it had to be sealed anew.
    repairs: int = 0

    @property
    def after(self) -> bytes:
        """What the mesh must have accepted before this."""
        return b"" if self.before is None else self.before.client_message_id

    @property
    def size(self) -> int:
        """How many bytes of a frame it takes, at most."""
        return len(self.send) + _OVERHEAD_BYTES

    def __lt__(self, other: "Sending") -> bool:
        return self.local_id < other.local_id


@dataclass(slots=True)
class _Lane:
    """The sends of one conversation."""

    # Not in flight; a heap by order of queueing.
    waiting: list[Sending] = field(default_factory=list)
    last: Sending | None = None
    loaded_up_to: int = 0
    queued_up_to: int = 0
    size: int = 0
    doubtful: int = 0

    def is_due(self, now: float) -> bool:
        """Whether its first send may be written."""
        first = self.waiting[0] if self.waiting else None
        return first is not None and bool(first.send) and first.retry_at <= now


class Wanted(NamedTuple):
    """Sends of a conversation that are still in the store only."""

    conversation: bytes
    above_id: int
    up_to_id: int
    limit: int


@dataclass(frozen=True, slots=True)
class SendLimits:
    """What may wait for its answer at once."""

    sends: int = 500
    bytes: int = 1024 * 1024


@dataclass(slots=True)
class Turn:
    """What is to be written now, and what will never be."""

    sends: list[Sending] = field(default_factory=list)
    given_up: list[Sending] = field(default_factory=list)


class Outbox:
    """The sends that are in memory, lane by lane; the rest of the queue stays in the store."""

    def __init__(self, *, lane_size: int = 1024) -> None:
        self._lane_size = lane_size
        self._lanes: dict[bytes, _Lane] = {}
        self._unsettled: dict[bytes, Sending] = {}
        self._unsealed: dict[bytes, Sending] = {}
        self._in_flight = 0
        self._in_flight_bytes = 0
        # Conversations of which some sends are in the store only.
        self._behind: set[bytes] = set()
        # Whose turn it is: conversations with something that waits, each once.
        self._turns: deque[bytes] = deque()
        self._has_turn: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._unsettled)

    def __getitem__(self, client_message_id: bytes) -> Sending:
        return self._unsettled[client_message_id]

    def __contains__(self, client_message_id: bytes) -> bool:
        return client_message_id in self._unsettled

    # The queue grows.

    def queued(self, conversation: bytes, up_to_id: int) -> None:
        """The store's queue of the conversation goes up to this local id now."""
        self._lane(conversation).queued_up_to = up_to_id
        self._behind.add(conversation)

    def offer(self, sends: Iterable[Sending]) -> None:
        """These were just queued: take them in if nothing before them is still in the store."""
        for sending in sends:
            lane = self._lane(sending.conversation)
            has_all = lane.loaded_up_to == lane.queued_up_to
            lane.queued_up_to = max(lane.queued_up_to, sending.local_id)
            if has_all and lane.size < self._lane_size:
                self._append(lane, sending)
            else:
                self._behind.add(sending.conversation)

    def wanting(self) -> list[Wanted]:
        """What to load from the store, a good part of a lane at a time."""
        enough = self._lane_size * 3 // 4
        lanes = ((conversation, self._lanes[conversation]) for conversation in self._behind)
        return [
            Wanted(conversation, lane.loaded_up_to, lane.queued_up_to, self._lane_size - lane.size)
            for conversation, lane in lanes
            if lane.size <= enough
        ]

    def load(self, wanted: Wanted, sends: Sequence[Sending]) -> None:
        """Take in what the store had of what was wanted, ascending."""
        lane = self._lane(wanted.conversation)
        for sending in sends:
            self._append(lane, sending)
        if len(sends) < wanted.limit:
            lane.loaded_up_to = wanted.up_to_id
        if lane.loaded_up_to == lane.queued_up_to:
            self._behind.discard(wanted.conversation)
            self._drop_if_empty(wanted.conversation, lane)

    # The queue shrinks.

    def settle(self, client_message_id: bytes) -> Sending | None:
        """The send is accepted or given up; None if that is known already."""
        sending = self._unsettled.pop(client_message_id, None)
        if sending is None:
            return None
        self._unsealed.pop(client_message_id, None)
        lane = self._lanes[sending.conversation]
        if sending.is_in_flight:
            self._land(sending)
        else:
            lane.waiting.remove(sending)
            heapq.heapify(lane.waiting)
        self._unlink(lane, sending)
        return sending

    def refuse_for_now(self, client_message_id: bytes, retry_at: float) -> None:
        """Repeat the send when the monotonic clock reaches `retry_at`."""
        sending = self._unsettled.get(client_message_id)
        if sending is None or not sending.is_in_flight:
            return
        sending.retry_at = retry_at
        self._return(sending)

    def stream_ended(self) -> None:
        """Nobody will answer what is in flight: all of it waits to be repeated."""
        for sending in self._unsettled.values():
            if sending.is_in_flight:
                self._return(sending)

    # Sealing.

    def unsealed(self, limit: int, *, lacking: Collection[bytes]) -> list[Sending]:
        """What is to be sealed next, in order; not what is for the accounts that lack a session."""
        wanted = (
            one
            for one in self._unsealed.values()
            if one.conversation not in lacking and not self._lanes[one.conversation].doubtful
        )
        return heapq.nsmallest(limit, wanted)

    def seal(self, sending: Sending, send: bytes) -> None:
        """The send has its bytes now."""
        if self._unsealed.pop(sending.client_message_id, None) is not None:
            sending.send = send

    def renew(self, sending: Sending, send: bytes) -> None:
        """The send, which is on its way, has other bytes now."""
        self._in_flight_bytes += len(send) - len(sending.send)
        sending.send = send

    def unseal(self, client_message_id: bytes, retry_at: float) -> None:
        """The send must get other bytes, and so must all behind it that has some.

        It is not tried before the monotonic clock says `retry_at`.
        """
        sending = self._unsettled.get(client_message_id)
        if sending is None or not sending.is_in_flight:
            return
        self.refuse_for_now(client_message_id, retry_at)
        self._strip(sending)
        sending.repairs += 1
        behind = sending.behind
        while behind is not None:
            self._doubt(behind)
            behind = behind.behind

    # What goes out.

    def take(self, *, now: float, server_now_ms: int, limits: SendLimits) -> Turn:
        """The sends that may be written now, marked as in flight, the conversations in turns."""
        turn = Turn()
        oldest = server_now_ms - CONFIRMABLE_MS
        not_due: list[bytes] = []
        while self._turns:
            lane = self._lanes[self._turns[0]]
            is_due = lane.is_due(now)
            if is_due and not self._has_room(lane.waiting[0], limits):
                break
            conversation = self._turns.popleft()
            self._has_turn.discard(conversation)
            if lane.waiting and not is_due:
                not_due.append(conversation)
            elif lane.waiting:
                self._take_next(lane, turn, oldest)
                if lane.waiting:
                    self._give_turn(conversation)
        for conversation in not_due:
            self._give_turn(conversation)
        return turn

    def next_retry_at(self) -> float | None:
        """When something that was refused for now is due; None if nothing waits."""
        heads = (self._lanes[conversation].waiting for conversation in self._turns)
        due = (waiting[0].retry_at for waiting in heads if waiting and waiting[0].send)
        return min(due, default=None)

    def _take_next(self, lane: _Lane, turn: Turn, oldest: int) -> None:
        sending = heapq.heappop(lane.waiting)
        if sending.first_tried_at is not None and sending.first_tried_at < oldest:
            del self._unsettled[sending.client_message_id]
            self._unlink(lane, sending)
            turn.given_up.append(sending)
            return
        sending.is_in_flight = True
        self._in_flight += 1
        self._in_flight_bytes += sending.size
        turn.sends.append(sending)

    def _has_room(self, sending: Sending, limits: SendLimits) -> bool:
        return self._in_flight < limits.sends and (
            self._in_flight == 0 or self._in_flight_bytes + sending.size <= limits.bytes
        )

    def _lane(self, conversation: bytes) -> _Lane:
        lane = self._lanes.get(conversation)
        if lane is None:
            lane = self._lanes[conversation] = _Lane()
        return lane

    def _append(self, lane: _Lane, sending: Sending) -> None:
        lane.loaded_up_to = sending.local_id
        lane.queued_up_to = max(lane.queued_up_to, sending.local_id)
        lane.size += 1
        sending.before = lane.last
        if lane.last is not None:
            lane.last.behind = sending
        lane.last = sending
        self._unsettled[sending.client_message_id] = sending
        if not sending.send:
            self._unsealed[sending.client_message_id] = sending
        self._wait(lane, sending)

    def _wait(self, lane: _Lane, sending: Sending) -> None:
        heapq.heappush(lane.waiting, sending)
        self._give_turn(sending.conversation)

    def _give_turn(self, conversation: bytes) -> None:
        if conversation not in self._has_turn:
            self._has_turn.add(conversation)
            self._turns.append(conversation)

    def _doubt(self, sending: Sending) -> None:
        if not sending.is_in_flight:
            self._strip(sending)
        elif not sending.is_doubtful:
            sending.is_doubtful = True
            self._lanes[sending.conversation].doubtful += 1

    def _strip(self, sending: Sending) -> None:
        sending.send = b""
        self._unsealed[sending.client_message_id] = sending

    def _return(self, sending: Sending) -> None:
        """It was on its way, and waits again."""
        is_doubtful = sending.is_doubtful
        self._land(sending)
        if is_doubtful:
            self._strip(sending)
        self._wait(self._lanes[sending.conversation], sending)

    def _land(self, sending: Sending) -> None:
        if sending.is_doubtful:
            sending.is_doubtful = False
            self._lanes[sending.conversation].doubtful -= 1
        sending.is_in_flight = False
        self._in_flight -= 1
        self._in_flight_bytes -= sending.size

    def _unlink(self, lane: _Lane, sending: Sending) -> None:
        lane.size -= 1
        if sending.before is not None:
            sending.before.behind = sending.behind
        if sending.behind is not None:
            sending.behind.before = sending.before
        if lane.last is sending:
            lane.last = sending.before
        self._drop_if_empty(sending.conversation, lane)

    def _drop_if_empty(self, conversation: bytes, lane: _Lane) -> None:
        """A lane costs memory only while something is in it."""
        if not lane.size and conversation not in self._behind:
            del self._lanes[conversation]
            if conversation in self._has_turn:
                self._has_turn.discard(conversation)
                self._turns.remove(conversation)
