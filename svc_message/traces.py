"""Traces over an offline gap: where they stand is stored beside the queues, if sampled.

A row of its own, and no column of the queue: a message that is not sampled pays nothing for it.
"""

from collections.abc import Sequence

import structlog

from mesh.postgres import STORE_ERRORS
from svc_message.requests import Copy, SendRequest
from svc_message.store import ShardStore

log = structlog.get_logger(__name__)


async def note_traces(
    store: ShardStore, items: Sequence[SendRequest | Copy], slots: Sequence[int]
) -> None:
    """Store where the traces of the sampled ones stand; each for the slot of its recipient.

    A failure costs a link in a trace, and is for nobody else to care about.
    """
    traced = [
        (slot, item.message_id, item.traces[0])
        for item, slot in zip(items, slots, strict=True)
        if item.traces
    ]
    if traced:
        try:
            await store.traces.note(*map(list, zip(*traced, strict=True)))
        except STORE_ERRORS as error:
            log.warning("traces are not noted", error=type(error).__name__)
