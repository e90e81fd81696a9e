"""Silent conversations: an application decides, the mesh is told for pushes, own devices too."""

from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from whimbrel.content.v1.history_pb2 import Mute
from whimbrel_client.account_calls import AccountCalls
from whimbrel_client.clock import ServerClock
from whimbrel_client.life import Life
from whimbrel_client.mute_store import MuteStore
from whimbrel_client.sync import Sending

_MS = timedelta(milliseconds=1)

# The last moment that a Timestamp has, less a day: time zones.
FOR_EVER = datetime.fromisoformat("9999-12-30T00:00:00+00:00")


class Mutes:
    """Silences conversations, and tells which are silent."""

    def __init__(
        self,
        store: MuteStore,
        calls: AccountCalls,
        *,
        clock: ServerClock,
        life: Life,
        offer: Callable[[Iterable[Sending]], None],
    ) -> None:
        """`offer` takes what was queued to be sent."""
        self._store = store
        self._calls = calls
        self._clock = clock
        self._life = life
        self._offer = offer
        # Rings when another own device has decided something.
        self.changed = life.bell()

    async def set(self, user_id: bytes, until: datetime | None) -> None:
        """Silence the chat with a person until then; None: not any more.

        The last word counts, whichever own device says it. Raises ValueError for a time without a
        zone or beyond FOR_EVER, CallFailed and Unreachable: then nothing has changed.
        """
        if until is not None and (until.tzinfo is None or until > FOR_EVER):
            raise ValueError(f"{until}: a time with a zone, up to {FOR_EVER}")
        decided = Mute(conversation=user_id)
        if until is not None:
            decided.until.CopyFrom(_stamp(until))
        decided.decided_at.FromMilliseconds(self._clock.now_ms())
        await self._calls.set_mute(user_id, decided.until if until is not None else None)
        self._offer(await self._store.keep(decided))
        self.changed.ring()

    async def muted(self) -> dict[bytes, datetime]:
        """Until when each conversation that is silent now will be."""
        return await self._store.muted(self._clock.now_ms())

    async def follow(self) -> AsyncGenerator[dict[bytes, datetime], None]:
        """What `muted` says now, and again whenever somebody has decided something."""
        while True:
            ring = self.changed.next_ring()
            yield await self.muted()
            self._life.raise_if_ended()
            await ring.wait()


def _stamp(until: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds((until - datetime.fromtimestamp(0, until.tzinfo)) // _MS)
    return stamp
