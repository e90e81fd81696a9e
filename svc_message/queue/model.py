"""What a queue is; knows neither Postgres nor Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import grpc

from mesh.errors import Unavailable, WhimbrelError

EVENTS_TOPIC = "whimbrel.events.v1"
JOBS_TOPIC = "whimbrel.jobs.v1"


class ClaimLost(WhimbrelError):
    """Another consumer of the group took over, or it was rewound: what was received comes again."""

    code = grpc.StatusCode.ABORTED
    reason = "CLAIM_LOST"


class QueueAway(Unavailable):
    """The queue's server cannot be reached; whether it did what was asked is not known."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing on a queue: entries of one key keep their order."""

    key: bytes  # 16 bytes: a conversation, or an account
    value: bytes  # a serialised message of whimbrel.event.v1


class Queue(Protocol):
    """A consumer's end of a queue. Consumers of one group share its entries.

    An entry is given at least once to each group, in order with all others of its key. A consumer
    is one task's.
    """

    async def receive(self, most: int, *, within: timedelta) -> Sequence[Entry]:
        """The entries behind those that the group has committed; none if none come in that time.

        About `most` of them. Until they are committed the same come again, to this consumer or to
        the group's next; now and then also after that. A server that is away is waited for.
        """

    async def commit(self) -> None:
        """Note that what was received last is done with. Raises ClaimLost, QueueAway."""

    async def close(self) -> None:
        """Leave the group, so that another consumer goes on with what is not committed."""
