"""Traces over an offline gap: where they stand is stored beside the queues, if sampled.

A row of its own, and no column of the queue: a message that is not sampled pays nothing for it.
"""

from collections.abc import Iterator, Sequence

import structlog

from mesh.postgres import STORE_ERRORS
from svc_message.groups.requests import Chunk, Recipient
from svc_message.requests import Copy, SendRequest
from svc_message.trace_store import Traced, TraceStore

log = structlog.get_logger(__name__)

# Of the members of a chunk: a message to a group of thousands is some dozen spans.
_MOST_LINKED = 8


async def note_traces(
    store: TraceStore, items: Sequence[SendRequest | Copy], slots: Sequence[int]
) -> None:
    """Store where the traces of the sampled ones stand; each for the slot of its recipient."""
    both = zip(items, slots, strict=True)
    await _note(
        store, [Traced(slot, one.message_id, one.traces[0]) for one, slot in both if one.traces]
    )


async def note_run_traces(store: TraceStore, chunks: Sequence[Chunk]) -> None:
    """The same of groups' messages, for some of their members; nobody knows here who is away."""
    await _note(
        store,
        [
            Traced(member.slot, message.message_id, at)
            for chunk in chunks
            if chunk.traces
            for message, at in zip(chunk.run.sampled, chunk.traces, strict=False)
            for member in _some(chunk.recipients, message.seq)
        ],
    )


def _some(members: Sequence[Recipient], seq: int) -> Iterator[Recipient]:
    """Others for the next message, so that in time it is everybody's turn."""
    for number in range(min(_MOST_LINKED, len(members))):
        yield members[(seq + number) % len(members)]


async def _note(store: TraceStore, traced: Sequence[Traced]) -> None:
    """A failure costs a link in a trace, and is for nobody else to care about."""
    if traced:
        try:
            await store.note(traced)
        except STORE_ERRORS as error:
            log.warning("traces are not noted", error=type(error).__name__)
