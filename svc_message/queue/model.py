"""What a queue is; knows neither Postgres nor Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import grpc

from mesh.errors import WhimbrelError

EVENTS_TOPIC = "whimbrel.events.v1"
JOBS_TOPIC = "whimbrel.jobs.v1"


class ClaimLost(WhimbrelError):
    """Another consumer of the group took over, or it was rewound: what was received comes again."""

    code = grpc.StatusCode.ABORTED
    reason = "CLAIM_LOST"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing on a queue: entries of one key keep their order."""

    key: bytes  # 16 bytes: a conversation, or an account
    value: bytes  # a serialised message of whimbrel.event.v1


class Queue(Protocol):
    """A consumer's end of a queue. Consumers of one group share its entries.

    An entry is given at least once to each group, in order with all others of its key.
    """

    async def receive(self, most: int, *, within: timedelta) -> Sequence[Entry]:
        """The next entries, about `most`; none if none come `within` that time.

        They come again to the group's next consumer unless they are committed, and so may what was
        committed: repeats are rare, and legal. A server that is away is waited for, not reported.
        """

    async def commit(self) -> None:
        """Note that all that this consumer has received is done with. Raises ClaimLost."""

    async def close(self) -> None:
        """Leave the group, so that another consumer goes on at once with what is not committed."""
