"""Who is online, by the heartbeats of gateways and the time; pure.

A person is online while any gateway has said so lately. Times are seconds since the epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from svc_presence.model import Presence, State, Terms


@dataclass(frozen=True, slots=True)
class Seen:
    """What was last heard of somebody, and when: that they were there, or that they had left."""

    at: int
    is_there: bool


class Heartbeats:
    """When each gateway last said of whom that they are there."""

    def __init__(self, offline_after: float) -> None:
        self._offline_after = offline_after
        self._heard: dict[str, dict[bytes, int]] = {}  # by gateway

    def heard(self, gateway_id: str, user_ids: Iterable[bytes], now: int) -> None:
        """A gateway has sessions of these."""
        self._heard.setdefault(gateway_id, {}).update(dict.fromkeys(user_ids, now))

    def gone(self, gateway_id: str, user_id: bytes, now: int) -> bool:
        """A gateway has none of somebody's any more; True if that was the last."""
        self._heard.get(gateway_id, {}).pop(user_id, None)
        seen = self.last(user_id)
        return seen is None or not is_fresh(seen, now, self._offline_after)

    def last(self, user_id: bytes) -> Seen | None:
        """The last heartbeat of somebody, at whichever gateway."""
        times = [users[user_id] for users in self._heard.values() if user_id in users]
        return Seen(max(times), is_there=True) if times else None

    def forget_stale(self, now: int) -> None:
        """Drop what says nothing any more; those gateways are gone, or have forgotten to say so."""
        oldest = now - self._offline_after
        for gateway_id, users in [*self._heard.items()]:
            fresh = {user_id: at for user_id, at in users.items() if at > oldest}
            if fresh:
                self._heard[gateway_id] = fresh
            else:
                del self._heard[gateway_id]


def is_fresh(seen: Seen, now: int, offline_after: float) -> bool:
    """Whether somebody is online by what was heard."""
    return seen.is_there and now - seen.at < offline_after


def shown(seen: Seen | None, terms: Terms, *, is_online: bool) -> Presence:
    """What a watcher sees under its terms; last seen is rounded down as its owner has chosen."""
    if not terms.is_visible:
        return Presence(State.HIDDEN)
    if is_online:
        return Presence(State.ONLINE)
    if seen is None:
        return Presence(State.OFFLINE)
    return Presence(State.OFFLINE, seen.at - seen.at % terms.last_seen_seconds)
