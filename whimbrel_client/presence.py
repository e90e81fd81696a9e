"""Who is online, and who writes: what is told of the chats that are open here.

All of it is a hint, and nothing of it is kept: a stream that breaks is told again what is open.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

import grpc

from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel.presence.v1 import state_pb2
from whimbrel_client.errors import ClientClosed
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization
from whimbrel_client.life import Life

log = logging.getLogger(__name__)

# An activity is repeated so often, and is over so long after the last repetition.
REPEAT_SECONDS = 3.0
_OVER_SECONDS = 6.0
_MOST_NEWS = 256

Token = Callable[[], Awaitable[str]]
_Peer = tuple[str, bytes]


class PresenceState(Enum):
    """Whether somebody is there."""

    ONLINE = state_pb2.PRESENCE_STATE_ONLINE
    OFFLINE = state_pb2.PRESENCE_STATE_OFFLINE
    HIDDEN = state_pb2.PRESENCE_STATE_HIDDEN


class Activity(Enum):
    """What somebody does in a chat."""

    TYPING = state_pb2.ACTIVITY_TYPING
    RECORDING = state_pb2.ACTIVITY_RECORDING
    STOPPED = state_pb2.ACTIVITY_STOPPED


class VisibleTo(Enum):
    """Who may see a person's presence; a contact is somebody to whom the person has ever sent."""

    EVERYONE = identity_pb2.AUDIENCE_EVERYONE
    CONTACTS = identity_pb2.AUDIENCE_CONTACTS
    NOBODY = identity_pb2.AUDIENCE_NOBODY


class LastSeen(Enum):
    """How exact the time of a person's last presence is to others."""

    MINUTE = identity_pb2.LAST_SEEN_MINUTE
    HOUR = identity_pb2.LAST_SEEN_HOUR
    DAY = identity_pb2.LAST_SEEN_DAY


# What is newer than this version is ignored.
_STATES = frozenset(state.value for state in PresenceState)
_ACTIVITIES = frozenset(activity.value for activity in Activity)


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether the other of a direct chat is there. `last_seen`: for OFFLINE, if it is known."""

    user_id: bytes
    state: PresenceState
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True)
class Writing:
    """Somebody writes in the chat, records, or has stopped."""

    user_id: bytes
    activity: Activity


Sign = Presence | Writing


class Presences:
    """The chats that are open on this device, and what is told of them."""

    def __init__(
        self, calls: IdentityCalls, token: Token, *, life: Life, on_work: Callable[[], None]
    ) -> None:
        self._calls = calls
        self._token = token
        self._life = life
        self._told = life.bell()
        self._on_work = on_work
        self._open: dict[_Peer, list[deque[Sign]]] = {}
        self._known: dict[_Peer, Presence] = {}
        self._unsaid: dict[_Peer, bool] = {}  # whether the chat is open
        self._writing: dict[_Peer, Activity] = {}
        self._written: dict[_Peer, tuple[Activity, float]] = {}

    async def watch(self, chat: bytes, *, is_group: bool = False) -> AsyncGenerator[Sign, None]:
        """The chat is open for as long as this is iterated: the other's presence, who writes.

        First comes what is known already. It ends with the client, or raises what has ended it.
        """
        peer = _peer(chat, is_group=is_group)
        news: deque[Sign] = deque(filter(None, [self._known.get(peer)]), maxlen=_MOST_NEWS)
        self._opened(peer, news)
        over_at: dict[bytes, float] = {}
        try:
            while True:
                ring = self._told.next_ring()
                while news:
                    sign = news.popleft()
                    _note_end(sign, over_at)
                    yield sign
                for user_id in _ended(over_at):
                    yield Writing(user_id, Activity.STOPPED)
                self._life.raise_if_ended()
                await _rung(ring, min(over_at.values(), default=None))
        except ClientClosed:
            return
        finally:
            self._closed(peer, news)

    def write(
        self, chat: bytes, activity: Activity = Activity.TYPING, *, is_group: bool = False
    ) -> None:
        """The person writes; call it with every key that is pressed. Told if the mesh is there."""
        peer, now = _peer(chat, is_group=is_group), time.monotonic()
        last, at = self._written.get(peer, (Activity.STOPPED, 0.0))
        if last is not activity or (
            activity is not Activity.STOPPED and now - at >= REPEAT_SECONDS
        ):
            self._written[peer] = activity, now
            self._writing[peer] = activity
            self._on_work()

    async def show_to(
        self, audience: VisibleTo | None = None, last_seen: LastSeen | None = None
    ) -> None:
        """Choose who sees this account's presence, and how exactly; None leaves a choice.

        It is mutual. Only the primary may. Raises CallFailed (CALLER_NOT_ALLOWED), Unreachable.
        """
        request = identity_pb2.SetPrivacyRequest()
        if audience is not None:
            request.presence_visible_to = audience.value
        if last_seen is not None:
            request.last_seen = last_seen.value
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> None:
            stub = identity_pb2_grpc.IdentityServiceStub(channel)
            await stub.SetPrivacy(request, timeout=CALL_SECONDS, metadata=metadata)

        await self._calls.anywhere(call)

    # For the exchange.

    def stream_opened(self) -> None:
        """A stream has begun, which knows of nothing that is open; what was written is past."""
        self._unsaid = dict.fromkeys(self._open, True)
        self._writing.clear()

    def take(self) -> list[gateway_pb2.DeviceEvent]:
        """What is to be said now."""
        events = []
        for is_open in (True, False):
            peers = [peer for peer, is_so in self._unsaid.items() if is_so is is_open]
            if peers:
                events.append(_chats(peers, is_open=is_open))
        for (kind, id_), activity in self._writing.items():
            writing = gateway_pb2.Typing(activity=activity.value)
            setattr(writing, kind, id_)
            events.append(gateway_pb2.DeviceEvent(writing=writing))
        self._unsaid.clear()
        self._writing.clear()
        return events

    def note(self, event: gateway_pb2.ServerEvent) -> None:
        """What the mesh says of an open chat."""
        match event.WhichOneof("event"):
            case "presence" if event.presence.state in _STATES:
                presence = _presence(event.presence)
                peer = _peer(presence.user_id, is_group=False)
                if peer in self._open:
                    self._known[peer] = presence
                    self._tell(peer, presence)
            case "writing" if event.writing.activity in _ACTIVITIES:
                told = event.writing
                peer = _peer(told.group_id or told.user_id, is_group=bool(told.group_id))
                self._tell(peer, Writing(told.user_id, Activity(told.activity)))
            case "watch_refused":
                log.warning("too many chats are open: at most %d", event.watch_refused.allowed)

    def _tell(self, peer: _Peer, sign: Sign) -> None:
        for news in self._open.get(peer, ()):
            news.append(sign)
        self._told.ring()

    def _opened(self, peer: _Peer, news: deque[Sign]) -> None:
        if peer not in self._open:
            self._unsaid[peer] = True
            self._on_work()
        self._open.setdefault(peer, []).append(news)

    def _closed(self, peer: _Peer, news: deque[Sign]) -> None:
        left = [one for one in self._open[peer] if one is not news]
        if left:
            self._open[peer] = left
            return
        del self._open[peer]
        self._known.pop(peer, None)
        self._unsaid[peer] = False
        self._on_work()


def _peer(chat: bytes, *, is_group: bool) -> _Peer:
    return ("group_id" if is_group else "user_id"), chat


def _chats(peers: list[_Peer], *, is_open: bool) -> gateway_pb2.DeviceEvent:
    chats = gateway_pb2.ChatList(
        user_ids=[id_ for kind, id_ in peers if kind == "user_id"],
        group_ids=[id_ for kind, id_ in peers if kind == "group_id"],
    )
    if is_open:
        return gateway_pb2.DeviceEvent(watch=chats)
    return gateway_pb2.DeviceEvent(unwatch=chats)


def _presence(presence: state_pb2.Presence) -> Presence:
    last_seen = presence.last_seen.ToDatetime(UTC) if presence.HasField("last_seen") else None
    return Presence(presence.user_id, PresenceState(presence.state), last_seen)


def _note_end(sign: Sign, over_at: dict[bytes, float]) -> None:
    if isinstance(sign, Writing):
        over_at.pop(sign.user_id, None)
        if sign.activity is not Activity.STOPPED:
            over_at[sign.user_id] = time.monotonic() + _OVER_SECONDS


def _ended(over_at: dict[bytes, float]) -> list[bytes]:
    """Those who have not repeated for so long that they have stopped; they are forgotten."""
    now = time.monotonic()
    ended = [user_id for user_id, at in over_at.items() if at <= now]
    for user_id in ended:
        del over_at[user_id]
    return ended


async def _rung(ring: asyncio.Event, at: float | None) -> None:
    """Wait for the ring, and no longer than until then."""
    try:
        async with asyncio.timeout(None if at is None else max(0.0, at - time.monotonic())):
            await ring.wait()
    except TimeoutError:
        return
