"""Follows those who are watched, and tells their watchers; keeps everybody's last heartbeat."""

import asyncio
import itertools
from collections.abc import Iterable
from datetime import timedelta

import structlog

from mesh.clock import Clock
from svc_presence.audience import Audience
from svc_presence.link import GatewayLink
from svc_presence.model import Activity, Chat, Terms, Viewing
from svc_presence.presence import Heartbeats, Seen, is_fresh, shown
from svc_presence.store import RedisPresence, Unreachable
from svc_presence.watch import Watch, Watches

log = structlog.get_logger(__name__)

_MOST_A_BATCH = 1_000
_MOST_UNREAD = 10_000
_LOOK_SECONDS = 2.0
_ROUNDS_TO_FORGET = 15


class Tracker:
    """The presence of those users whom this instance has been given.

    A heartbeat of somebody whom nobody watches goes to the store, and that is all. What comes from
    gateways is taken at once; nothing here waits but the tasks of `run`.
    """

    def __init__(
        self,
        store: RedisPresence,
        audience: Audience,
        *,
        offline_after: timedelta,
        most_watches: int,
        clock: Clock,
    ) -> None:
        self._store = store
        self._audience = audience
        self._clock = clock
        self._offline_after = offline_after.total_seconds()
        self._heartbeats = Heartbeats(self._offline_after)
        self.watches = Watches(most_watches)
        # Of those who are watched, and who were known once: what was heard last.
        self._seen: dict[bytes, Seen] = {}
        self._unkept: dict[bytes, Seen] = {}
        self._keeping: dict[bytes, Seen] = {}  # on its way to the store
        self._unread: dict[bytes, None] = {}
        # What people do in groups of which they are not known to be members yet.
        self._writing: dict[Viewing, Activity] = {}
        self._to_keep, self._to_read = asyncio.Event(), asyncio.Event()

    # What gateways say.

    def heard(self, gateway_id: str, user_ids: Iterable[bytes]) -> None:
        """These have sessions there."""
        now = self._now()
        user_ids = [*user_ids]
        self._heartbeats.heard(gateway_id, user_ids, now)
        seen = Seen(now, is_there=True)
        self._unkept.update(dict.fromkeys(user_ids, seen))
        self._to_keep.set()
        for user_id in user_ids:
            if Chat(user_id) in self.watches.chats:
                self._saw(user_id, seen)

    def gone(self, gateway_id: str, user_ids: Iterable[bytes]) -> None:
        """These have none there any more; whoever has none anywhere has just left."""
        now = self._now()
        for user_id in user_ids:
            if self._heartbeats.gone(gateway_id, user_id, now):
                seen = Seen(now, is_there=False)
                self._unkept[user_id] = seen
                self._to_keep.set()
                if Chat(user_id) in self.watches.chats:
                    self._saw(user_id, seen)

    def watch(self, link: GatewayLink, viewing: Viewing) -> None:
        """A person has a chat open at a gateway; they are told once their terms are known."""
        watch = self.watches.add(link, viewing)
        if watch is not None:
            self._audience.want(viewing, self._allowed)

    def unwatch(self, link: GatewayLink, viewing: Viewing) -> None:
        """It is not open any more."""
        self.watches.remove(link, viewing)
        if viewing.chat not in self.watches.chats:
            self._seen.pop(viewing.chat.id, None)

    def typing(self, user_id: bytes, peer: Chat, activity: Activity) -> None:
        """Somebody writes to a person, or into a group: told to who has that chat open."""
        if not peer.is_group:
            self._tell_typing(user_id, activity, Viewing(Chat(user_id), peer.id))
        elif peer in self.watches.chats:
            # Only members write there; whether somebody is one takes a question at most.
            writing = Viewing(peer, user_id)
            self._writing[writing] = activity
            self._audience.want(writing, self._tell_group)
            if len(self._writing) > _MOST_UNREAD:  # nobody can be asked: forget the oldest
                del self._writing[next(iter(self._writing))]

    def closed(self, link: GatewayLink) -> None:
        """A gateway's stream is over."""
        self.watches.close(link)
        self._forget_unwatched()

    # What goes on between.

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._keep, self._read, self._look, self._audience.run):
                tasks.create_task(work(), name=f"tracker-{work.__name__.strip('_')}")

    async def _keep(self) -> None:
        """Write heartbeats to the store. What is lost there comes again with the next ones."""
        while True:
            await self._to_keep.wait()
            self._to_keep.clear()
            self._keeping, self._unkept = self._unkept, {}
            keeping = [*self._keeping.items()]
            try:
                for first in range(0, len(keeping), _MOST_A_BATCH):
                    await self._store.keep(dict(keeping[first : first + _MOST_A_BATCH]))
            except Unreachable:
                log.warning("heartbeats are not kept", count=len(keeping))
            self._keeping = {}

    async def _read(self) -> None:
        """Learn of people who are watched, and of whom no gateway has said anything yet."""
        while True:
            await self._to_read.wait()
            self._to_read.clear()
            while self._unread:
                user_ids = [*self._unread][:_MOST_A_BATCH]
                try:
                    known = await self._store.last(user_ids)
                except Unreachable:
                    known = {}
                for user_id in user_ids:
                    del self._unread[user_id]
                    self._learned(user_id, known.get(user_id))

    async def _look(self) -> None:
        """Notice those who are heard of no more, and ask again for terms that have aged."""
        rounds = itertools.count(1)
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            watches = [*self.watches]
            for first in range(0, len(watches), _MOST_A_BATCH):
                for watch in watches[first : first + _MOST_A_BATCH]:
                    self._look_at(watch)
                await self._clock.sleep(0)  # between the slices, heartbeats go on
            if next(rounds) % _ROUNDS_TO_FORGET == 0:
                self._heartbeats.forget_stale(self._now())

    def _look_at(self, watch: Watch) -> None:
        if self._audience.known(watch.viewing) is None:
            self._audience.want(watch.viewing, self._allowed)
        seen = self._seen.get(watch.viewing.chat.id)
        if seen is not None and seen.is_there:  # else the time changes nothing
            self._tell(watch)

    # How it follows.

    def _allowed(self, viewing: Viewing, terms: Terms) -> None:
        """The message service has said what a watcher may learn."""
        user_id, is_group = viewing.chat
        for watch in self.watches.of_viewing(viewing):
            watch.terms = terms
            if is_group:
                continue
            if terms.is_visible and user_id not in self._seen:
                self._want(user_id)
            else:
                self._tell(watch)

    def _want(self, user_id: bytes) -> None:
        """Learn what there is to know of somebody: from a gateway's word, or from the store."""
        seen = self._heartbeats.last(user_id)
        if seen is None or not self._is_fresh(seen):
            seen = self._unkept.get(user_id) or self._keeping.get(user_id)
        if seen is not None:
            self._saw(user_id, seen)
        elif len(self._unread) < _MOST_UNREAD:
            self._unread[user_id] = None
            self._to_read.set()

    def _learned(self, user_id: bytes, seen: Seen | None) -> None:
        if user_id in self._seen or Chat(user_id) not in self.watches.chats:
            return  # a gateway was faster, or nobody wants to know any more
        if seen is None:
            self._seen[user_id] = Seen(0, is_there=False)
            self._tell_all(user_id)
        else:
            self._saw(user_id, seen)

    def _saw(self, user_id: bytes, seen: Seen) -> None:
        self._seen[user_id] = seen
        self._tell_all(user_id)

    def _tell_all(self, user_id: bytes) -> None:
        for watch in self.watches.of(Chat(user_id)):
            self._tell(watch)

    def _tell(self, watch: Watch) -> None:
        seen = self._seen.get(watch.viewing.chat.id)
        if watch.terms is None or (seen is None and watch.terms.is_visible):
            return  # it is told when that is known
        is_online = seen is not None and self._is_fresh(seen)
        known = seen if seen is not None and seen.at else None
        watch.tell(shown(known, watch.terms, is_online=is_online))

    def _tell_typing(self, user_id: bytes, activity: Activity, viewing: Viewing) -> None:
        for watch in self.watches.of_viewing(viewing):
            if watch.terms is not None and watch.terms.is_told_typing:
                watch.link.tell_typing(user_id, activity, viewing)

    def _tell_group(self, writing: Viewing, terms: Terms) -> None:
        """It is known whether who writes into a group is a member."""
        group, user_id = writing
        activity = self._writing.pop(writing, None)
        if activity is None or not terms.is_told_typing:
            return
        for watch in self.watches.of(group):
            is_told = watch.terms is not None and watch.terms.is_told_typing
            if is_told and watch.viewing.watcher_id != user_id:
                watch.link.tell_typing(user_id, activity, watch.viewing)

    def _forget_unwatched(self) -> None:
        for user_id in [id_ for id_ in self._seen if Chat(id_) not in self.watches.chats]:
            del self._seen[user_id]

    def _is_fresh(self, seen: Seen) -> bool:
        return is_fresh(seen, self._now(), self._offline_after)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())
