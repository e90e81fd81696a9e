"""Holds a history against the delivery contract and names each violation with its evidence.

It knows only what clients saw and what the shards hold in the end; it knows no fault.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.history import (
    Acked,
    Answered,
    CaughtUp,
    Event,
    History,
    Opened,
    Read,
    Receipted,
    Received,
    Refused,
    Rest,
    Tried,
)

LONGEST_WAIT = 30.0  # seconds that an idle live device may wait for a lost doorbell


@dataclass(frozen=True, slots=True)
class Violation:
    """A row of docs/contract.md that did not hold."""

    row: int
    what: str
    evidence: tuple[Event, ...] = ()

    def __str__(self) -> str:
        proof = "".join(f"\n    {event}" for event in self.evidence)
        return f"row {self.row}: {self.what}{proof}"


def violations(
    history: History,
    rest: Rest | None = None,
    *,
    longest_wait: float = LONGEST_WAIT,
    may_be_refused: Iterable[str] = (),
) -> list[Violation]:
    """All violations; `may_be_refused` are the reasons for which a send may fail for good."""
    facts = _Facts(history)
    found = [
        *_lost(facts),
        *_seen_twice(facts),
        *_answered_differently(facts),
        *_invented(facts),
        *_seqs(facts),
        *_sender_order(facts),
        *_delivery_order(facts),
        *_receipts(facts),
        *_receipts_in_the_end(facts),
        *_caught_up(facts),
        *_waited(facts, longest_wait),
        *_refusals(facts, set(may_be_refused)),
        *_trespasses(facts),
    ]
    return found if rest is None else [*found, *_at_rest(facts, rest)]


def is_quiet(history: History) -> bool:
    """Whether all that was accepted has come, and senders know what was stored and read."""
    facts = _Facts(history)
    return not any(_lost(facts)) and not any(_receipts_in_the_end(facts))


class _Facts:
    """The history, sorted by what the checks ask for."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.tries: dict[bytes, list[Tried]] = defaultdict(list)
        for tried in history.all(Tried):
            self.tries[tried.client_id].append(tried)
        self.by_body = {tries[0].body: tries[0] for tries in self.tries.values()}
        self.answers: dict[bytes, list[Answered]] = defaultdict(list)
        for answered in history.all(Answered):
            self.answers[answered.client_id].append(answered)
        self.received: dict[str, list[Received]] = defaultdict(list)
        for received in history.all(Received):
            self.received[received.who].append(received)
        self.acked: dict[str, list[Acked]] = defaultdict(list)
        for acked in history.all(Acked):
            self.acked[acked.who].append(acked)

    def accepted(self) -> Iterator[tuple[Tried, Answered]]:
        """Each accepted send with its first answer."""
        for client_id, answers in self.answers.items():
            yield self.tries[client_id][0], answers[0]

    def of_conversation(self) -> dict[frozenset[str], list[tuple[Tried, Answered]]]:
        sends = defaultdict(list)
        for tried, answered in self.accepted():
            sends[frozenset((tried.who, tried.to))].append((tried, answered))
        return sends

    def acked_by(self, received: Received) -> Acked | None:
        """The first ack that covers the delivery."""
        if received.pos is None:
            return None
        covering = (a for a in self.acked[received.who] if a.up_to_pos >= received.pos)
        return next((a for a in covering if a.at >= received.at), None)


def _lost(facts: _Facts) -> Iterator[Violation]:
    """Row 1: what was accepted arrives, as it was sent."""
    received: dict[tuple[str, bytes], list[Received]] = defaultdict(list)
    for one in facts.history.all(Received):
        received[one.who, one.message_id].append(one)
    for tried, answered in facts.accepted():
        copies = received[tried.to, answered.message_id]
        if not copies:
            yield Violation(1, "an accepted message never arrived", (tried, answered))
        for copy in copies:
            if (copy.seq, copy.body, copy.sender) != (answered.seq, tried.body, tried.who):
                yield Violation(1, "a message arrived changed", (tried, answered, copy))
            if copy.accepted_at != answered.accepted_at:
                yield Violation(1, "a message arrived with another time", (answered, copy))


def _seen_twice(facts: _Facts) -> Iterator[Violation]:
    """Row 2: an application sees each message once; a place never holds two messages."""
    for deliveries in facts.received.values():
        places: dict[tuple[str, int], Received] = {}
        for one in deliveries:
            known = places.setdefault((one.peer, one.seq), one)
            if known.message_id != one.message_id:
                yield Violation(2, "two messages claim one place", (known, one))
            elif known is not one and one.pos is None:
                yield Violation(2, "an application saw a message twice", (known, one))


def _answered_differently(facts: _Facts) -> Iterator[Violation]:
    """Row 3: every answer to a send is the first answer."""
    for answers in facts.answers.values():
        first = answers[0]
        for again in answers[1:]:
            if (again.message_id, again.seq, again.accepted_at) != (
                first.message_id,
                first.seq,
                first.accepted_at,
            ):
                yield Violation(3, "a retry got another answer", (first, again))


def _invented(facts: _Facts) -> Iterator[Violation]:
    """Row 3: nothing arrives that was not sent, that was refused, or a second time as another."""
    refused = {r.client_id: r for r in facts.history.all(Refused) if r.retry_after is None}
    first: dict[bytes, Received] = {}
    for received in facts.history.all(Received):
        tried = facts.by_body.get(received.body)
        if tried is None:
            yield Violation(3, "a message arrived that nobody sent", (received,))
            continue
        if tried.client_id in refused:
            evidence = (tried, refused[tried.client_id], received)
            yield Violation(3, "a message arrived that was refused for good", evidence)
        known = first.setdefault(received.body, received)
        if (known.message_id, known.seq) != (received.message_id, received.seq):
            yield Violation(3, "one send became two messages", (tried, known, received))
    for client_id, refusal in refused.items():
        if client_id in facts.answers:
            evidence = (refusal, facts.answers[client_id][0])
            yield Violation(3, "a send was accepted and refused for good", evidence)


def _seqs(facts: _Facts) -> Iterator[Violation]:
    """Row 4: seqs of a conversation are 1, 2, 3 …, one message each, and time does not go back."""
    for people, sends in facts.of_conversation().items():
        holders: dict[int, Event] = {}
        for _, answered in sends:
            known = holders.setdefault(answered.seq, answered)
            if known is not answered:
                yield Violation(4, "two messages got one seq", (known, answered))
        for one in _deliveries_between(facts, people):
            holders.setdefault(one.seq, one)
        missing = sorted(set(range(1, max(holders) + 1)) - holders.keys())
        if missing:
            what = f"the conversation of {'/'.join(sorted(people))} has no message at {missing[:9]}"
            yield Violation(4, what)
        in_order = sorted(sends, key=lambda send: send[1].seq)
        for (_, earlier), (_, later) in pairwise(in_order):
            if later.accepted_at < earlier.accepted_at:
                yield Violation(4, "accept time went back", (earlier, later))


def _deliveries_between(facts: _Facts, people: Iterable[str]) -> Iterator[Received]:
    members = set(people)
    for who in members:
        yield from (r for r in facts.received[who] if {r.who, r.peer} == members)


def _sender_order(facts: _Facts) -> Iterator[Violation]:
    """Row 4: a device's messages keep its order, and what was answered before comes before."""
    for sends in facts.of_conversation().values():
        in_order = sorted(sends, key=lambda send: send[1].seq)
        last: dict[str, tuple[Tried, Answered]] = {}
        latest_try = (float("-inf"), None)
        for tried, answered in in_order:
            known = last.get(tried.who)
            if known is not None and known[0].number > tried.number:
                yield Violation(4, "a device's messages changed their order", (*known, tried))
            last[tried.who] = (tried, answered)
            # All before it in the order of seq were tried before its answer came.
            if latest_try[1] is not None and answered.at < latest_try[0]:
                evidence = (answered, latest_try[1])
                yield Violation(4, "a message went before one that was accepted", evidence)
            if tried.at > latest_try[0]:
                latest_try = (tried.at, tried)


def _delivery_order(facts: _Facts) -> Iterator[Violation]:
    """Row 4: positions are gapless on a stream, and first deliveries ascend in a conversation."""
    last_pos: dict[str, Received | None] = {}
    highest: dict[tuple[str, str], Received] = {}
    seen: set[tuple[str, str, int]] = set()
    for event in facts.history.events:
        if isinstance(event, Opened):
            last_pos[event.who] = None
        if not isinstance(event, Received):
            continue
        known = last_pos.get(event.who)
        if event.pos is not None:
            if known is not None and known.pos is not None and event.pos != known.pos + 1:
                yield Violation(4, "a stream's positions have a hole", (known, event))
            last_pos[event.who] = event
        place = (event.who, event.peer, event.seq)
        if place not in seen:
            seen.add(place)
            before = highest.get(place[:2])
            if before is not None and before.seq > event.seq:
                yield Violation(4, "first deliveries do not ascend", (before, event))
            else:
                highest[place[:2]] = event


def _receipts(facts: _Facts) -> Iterator[Violation]:
    """Row 5: receipts go forward only, and say nothing that the peer has not said."""
    newest: dict[tuple[str, str], Receipted] = {}
    for receipt in facts.history.all(Receipted):
        known = newest.get((receipt.who, receipt.peer))
        if known is not None and receipt.version > known.version:
            if not _covers(receipt.delivered, known.delivered):
                yield Violation(5, "delivered was taken back", (known, receipt))
            if receipt.read_up_to < known.read_up_to:
                yield Violation(5, "read was taken back", (known, receipt))
        if known is None or receipt.version > known.version:
            newest[receipt.who, receipt.peer] = receipt
        yield from _groundless(facts, receipt)


def _groundless(facts: _Facts, receipt: Receipted) -> Iterator[Violation]:
    deliveries = [
        r for r in facts.received[receipt.peer] if r.peer == receipt.who == r.sender and r.pos
    ]
    if not deliveries:
        return  # an SDK: its acks are not in the history
    stored = set()
    for one in deliveries:
        ack = facts.acked_by(one)
        if ack is not None and ack.at <= receipt.at:
            stored.add(one.seq)
    own = {a.seq for t, a in facts.accepted() if (t.who, t.to) == (receipt.who, receipt.peer)}
    for seq in sorted(own - stored):
        if _covers(receipt.delivered, ((seq, seq),)):
            yield Violation(5, f"delivered was said of seq {seq} before it was stored", (receipt,))
    reads = [r for r in facts.history.all(Read) if (r.who, r.peer) == (receipt.peer, receipt.who)]
    said = max((read.up_to_seq for read in reads if read.at <= receipt.at), default=0)
    if receipt.read_up_to > said:
        yield Violation(5, "read was said before it was so", (receipt,))


def _receipts_in_the_end(facts: _Facts) -> Iterator[Violation]:
    """Row 5: the sender learns in the end what was stored and what was read."""
    delivered: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    read: dict[tuple[str, str], int] = defaultdict(int)
    for receipt in facts.history.all(Receipted):
        key = (receipt.who, receipt.peer)
        delivered[key] += receipt.delivered
        read[key] = max(read[key], receipt.read_up_to)
    own: dict[tuple[str, str], list[int]] = defaultdict(list)
    for tried, answered in facts.accepted():
        key = (tried.who, tried.to)
        own[key].append(answered.seq)
        if not any(first <= answered.seq <= last for first, last in delivered[key]):
            yield Violation(5, "a sender never learnt of a delivery", (tried, answered))
    for seqs in own.values():
        seqs.sort()
    for said in facts.history.all(Read):
        key = (said.peer, said.who)
        count = bisect_right(own[key], said.up_to_seq)
        if count and read[key] < own[key][count - 1]:
            yield Violation(5, "a sender never learnt of a reading", (said,))


def _covers(ranges: Sequence[tuple[int, int]], parts: Sequence[tuple[int, int]]) -> bool:
    return all(any(a <= first and last <= b for a, b in ranges) for first, last in parts)


def _caught_up(facts: _Facts) -> Iterator[Violation]:
    """Row 6: CaughtUp comes once all from before the stream is acked, and then it does come."""
    acked: dict[str, int] = defaultdict(int)
    opened: dict[str, Opened] = {}
    pending: dict[str, Opened] = {}
    for event in facts.history.events:
        if isinstance(event, Opened):
            opened[event.who] = pending[event.who] = event
        elif isinstance(event, Acked):
            acked[event.who] = max(acked[event.who], event.up_to_pos)
        elif isinstance(event, CaughtUp):
            began = opened[event.who]
            if began.head_pos > acked[event.who] or event.pos != began.head_pos:
                yield Violation(6, "CaughtUp came too early", (began, event))
            pending.pop(event.who, None)
    for began in pending.values():
        yield Violation(6, "CaughtUp never came on the last stream", (began,))


def _waited(facts: _Facts, longest: float) -> Iterator[Violation]:
    """Row 6: a live device does not wait long for what was accepted."""
    opened: dict[str, Opened] = {}
    arrived: set[tuple[str, bytes]] = set()
    answers = {a.message_id: a for a in facts.history.all(Answered)}
    for event in facts.history.events:
        if isinstance(event, Opened):
            opened[event.who] = event
        if not isinstance(event, Received) or (event.who, event.message_id) in arrived:
            continue
        arrived.add((event.who, event.message_id))
        answered, began = answers.get(event.message_id), opened.get(event.who)
        if answered is None or began is None:
            continue
        waited = event.at - max(answered.at, began.at)
        if waited > longest:
            what = f"a live device waited {waited:.1f} s for a message"
            yield Violation(6, what, (began, answered, event))


def _at_rest(facts: _Facts, rest: Rest) -> Iterator[Violation]:
    """Row 6: in the end nothing waits, and nothing left a queue that its device had not acked."""
    if rest.outbox_entries:
        yield Violation(6, f"{rest.outbox_entries} outbox entries stay")
    for who, queue in rest.queues.items():
        if queue.rows or queue.acked_pos < queue.head_pos:
            yield Violation(6, f"the queue of {who} is not empty: {queue}")
        acks = facts.acked[who]
        if acks and queue.acked_pos > max(ack.up_to_pos for ack in acks):
            yield Violation(6, f"the queue of {who} was emptied further than it acked: {queue}")


def _refusals(facts: _Facts, may_be_refused: set[str]) -> Iterator[Violation]:
    """Row 9: a refusal says why and when to come again; nothing is refused for good for a fault."""
    for refused in facts.history.all(Refused):
        if refused.reason in {"", "UNSPECIFIED", "INTERNAL"}:
            yield Violation(9, "a refusal without a reason of ours", (refused,))
        elif refused.retry_after is None and refused.reason not in may_be_refused:
            yield Violation(9, "a send failed for good", (refused,))
    answered = {refused.client_id for refused in facts.history.all(Refused)} | facts.answers.keys()
    for client_id, tries in facts.tries.items():
        if client_id not in answered:
            yield Violation(9, "a send was never answered", (tries[-1],))


def _trespasses(facts: _Facts) -> Iterator[Violation]:
    """Row 10: nobody receives what is another's."""
    for received in facts.history.all(Received):
        tried = facts.by_body.get(received.body)
        if tried is not None and received.who != tried.to:
            yield Violation(10, "a message reached somebody else", (tried, received))
