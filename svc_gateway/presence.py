"""Presence at the edge: heartbeats for the sessions here, and what their open chats are told.

Each person, and each group, is with the instance of the presence service that rendezvous picks. All
of it is a hint: without an instance nothing is told, and nothing else is any different.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from mesh.channels import Channels
from mesh.clock import Clock
from mesh.instances import Instance
from mesh.rendezvous import Rendezvous
from mesh.tasks import supervised
from svc_gateway import to_device, to_presence
from svc_gateway.presence_link import PresenceLink
from svc_gateway.reads import Peer
from svc_gateway.stream import DeviceStream
from svc_gateway.tally import Tally
from svc_gateway.watching import Viewing, Watching
from whimbrel.presence.v1 import presence_pb2, state_pb2

_MOST_A_HEARTBEAT = 500
# A session may say at once that its person writes, and then again each so many seconds.
_WRITINGS_AT_ONCE = 10
_WRITING_EACH = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceLimits:
    """How many chats sessions may watch, each and together, and how often their heartbeat goes."""

    max_watches: int = 200
    most_watches: int = 100_000
    heartbeat: timedelta = timedelta(seconds=30)


class Presences:
    """The sessions of this gateway, as the presence service is told of them."""

    def __init__(
        self,
        channels: Channels,
        *,
        gateway_id: str,
        limits: PresenceLimits,
        tally: Tally,
        clock: Clock,
    ) -> None:
        self._channels = channels
        self._gateway_id = gateway_id
        self._limits = limits
        self._tally = tally
        self._clock = clock
        self._links: dict[str, PresenceLink] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._streams: dict[bytes, set[DeviceStream]] = {}  # by user
        self._watching: Watching[DeviceStream] = Watching()
        self._may_write_at: dict[DeviceStream, float] = {}

    # What sessions do.

    def opened(self, stream: DeviceStream) -> None:
        """A session is open: its person is there, as soon as the instance has read it."""
        user_id = stream.device.user_id
        streams = self._streams.setdefault(user_id, set())
        streams.add(stream)
        if len(streams) == 1:
            self._say(user_id, to_presence.heartbeat([user_id]))

    def closed(self, stream: DeviceStream, *, is_leaving: bool) -> None:
        """A stream is over; `is_leaving`: its device is not just sent to another gateway."""
        self.unwatch(stream, self._watching.of(stream))
        self._may_write_at.pop(stream, None)
        user_id = stream.device.user_id
        streams = self._streams.get(user_id, set())
        if stream not in streams:
            return
        streams.discard(stream)
        if not streams:
            del self._streams[user_id]
            if is_leaving:
                self._say(user_id, to_presence.gone(user_id))

    def watch(self, stream: DeviceStream, peers: Sequence[Peer]) -> None:
        """A session opens chats: all of them, or none if they are too many."""
        new = set(peers) - self._watching.of(stream)
        if len(new) + len(self._watching.of(stream)) > self._limits.max_watches:
            self._refuse(stream, "TOO_MANY_WATCHES")
            return
        if len(new) + len(self._watching) > self._limits.most_watches:
            self._refuse(stream, "OVERLOADED")
            return
        for peer in new:
            viewing = Viewing(peer, stream.device.user_id)
            if self._watching.add(stream, viewing):
                self._say(peer[1], to_presence.watch(viewing.watcher_id, [peer]))
            told = self._watching.told(viewing)
            if told is not None:
                stream.hint(told)

    def unwatch(self, stream: DeviceStream, peers: Iterable[Peer]) -> None:
        """A session closes chats."""
        for peer in peers:
            viewing = Viewing(peer, stream.device.user_id)
            if self._watching.remove(stream, viewing):
                self._say(peer[1], to_presence.unwatch(viewing.watcher_id, [peer]))

    def writing(
        self, stream: DeviceStream, peer: Peer, activity: state_pb2.Activity.ValueType
    ) -> None:
        """A session's person writes; one too many is ignored."""
        now = self._clock.monotonic()
        full_at = max(self._may_write_at.get(stream, now), now) + _WRITING_EACH
        if full_at - now > _WRITINGS_AT_ONCE * _WRITING_EACH:
            self._tally.ignored_writings += 1
            return
        self._may_write_at[stream] = full_at
        kind, id_ = peer
        user_id = stream.device.user_id
        # Who watches a person is where that person is; who watches a group, where the group is.
        key = id_ if kind == "group_id" else user_id
        self._say(key, to_presence.writing(user_id, peer, activity))

    # What the presence service says.

    def _take(self, event: presence_pb2.PresenceEvent) -> None:
        match event.WhichOneof("event"):
            case "changed":
                presence = event.changed.presence
                peer, frame = ("user_id", presence.user_id), to_device.presence(presence)
                for watcher_id in event.changed.watcher_ids:
                    viewing = Viewing(peer, watcher_id)
                    if self._watching.tell(viewing, frame):
                        self._hint(viewing, frame)
            case "writing":
                notice = event.writing.notice
                kind = "group_id" if notice.group_id else "user_id"
                peer, frame = (kind, notice.group_id or notice.user_id), to_device.writing(notice)
                for watcher_id in event.writing.watcher_ids:
                    self._hint(Viewing(peer, watcher_id), frame)
            case _:
                pass  # newer than this gateway

    def _hint(self, viewing: Viewing, frame: bytes) -> None:
        for stream in self._watching.sessions(viewing):
            stream.hint(frame)

    def _refuse(self, stream: DeviceStream, reason: str) -> None:
        stream.hint(to_device.watch_refused(reason, self._limits.max_watches))

    # The instances.

    def instances_changed(self, instances: Mapping[str, Instance]) -> None:
        """Discovery has a new view: whoever is with another instance now is told of there."""
        before = self._channels.rendezvous
        self._channels.update(instances)
        self._changed.set()
        if self._channels.rendezvous is not before:
            self._move(before, self._channels.rendezvous)

    async def run(self) -> None:
        """Keep a stream to every instance, and the heartbeats; ends by cancellation only."""
        async with asyncio.TaskGroup() as tasks:
            beating = supervised(self._beat, name="heartbeats", clock=self._clock)
            tasks.create_task(beating, name="heartbeats")
            while True:
                self._changed.clear()
                self._follow(tasks)
                await self._changed.wait()

    async def close(self) -> None:
        """Close what the streams go by."""
        await self._channels.close()

    @property
    def open_instances(self) -> list[str]:
        """Whose streams are open."""
        return [instance_id for instance_id, link in self._links.items() if link.is_open]

    def _follow(self, tasks: asyncio.TaskGroup) -> None:
        known = self._channels.instances
        for instance_id in self._tasks.keys() - known.keys():
            self._tasks.pop(instance_id).cancel()
            del self._links[instance_id]
        for instance_id in known.keys() - self._tasks.keys():
            name = f"presence-{instance_id}"
            link = self._links[instance_id] = PresenceLink(
                instance_id,
                self._channels,
                gateway_id=self._gateway_id,
                everything=self._everything,
                on_event=self._take,
                clock=self._clock,
            )
            self._tasks[instance_id] = tasks.create_task(supervised(link.run, name=name), name=name)

    def _everything(self, instance_id: str) -> Iterator[bytes]:
        """What an instance is told when its stream opens."""
        pick = self._channels.rendezvous.pick
        user_ids = [user_id for user_id in self._streams if pick(user_id) == instance_id]
        for some in _sliced(user_ids):
            yield to_presence.heartbeat(some)
        by_watcher: defaultdict[bytes, list[Peer]] = defaultdict(list)
        for peer, watcher_id in self._watching:
            if pick(peer[1]) == instance_id:
                by_watcher[watcher_id].append(peer)
        for watcher_id, peers in by_watcher.items():
            yield to_presence.watch(watcher_id, peers)

    def _move(self, before: Rendezvous, now: Rendezvous) -> None:
        def has_moved(key: bytes) -> bool:
            return before.pick(key) != now.pick(key)

        for user_id in filter(has_moved, self._streams):
            self._say(user_id, to_presence.heartbeat([user_id]))
        for peer, watcher_id in self._watching:
            if has_moved(peer[1]):
                self._say_to(before.pick(peer[1]), to_presence.unwatch(watcher_id, [peer]))
                self._say(peer[1], to_presence.watch(watcher_id, [peer]))

    async def _beat(self) -> None:
        """Say of everybody here, once an interval and evenly over it, that they are here."""
        interval = self._limits.heartbeat.total_seconds()
        while True:
            slices = [*_sliced([*self._streams])]
            for some in slices:
                self._say_all(some)
                await self._clock.sleep(interval / len(slices))
            if not slices:
                await self._clock.sleep(interval)

    def _say_all(self, user_ids: Iterable[bytes]) -> None:
        by_instance: defaultdict[str | None, list[bytes]] = defaultdict(list)
        for user_id in user_ids:
            if user_id in self._streams:
                by_instance[self._channels.rendezvous.pick(user_id)].append(user_id)
        for instance_id, ids in by_instance.items():
            self._say_to(instance_id, to_presence.heartbeat(ids))

    def _say(self, key: bytes, frame: bytes) -> None:
        self._say_to(self._channels.rendezvous.pick(key), frame)

    def _say_to(self, instance_id: str | None, frame: bytes) -> None:
        link = self._links.get(instance_id or "")
        if link is not None:
            link.say(frame)


def _sliced(user_ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for first in range(0, len(user_ids), _MOST_A_HEARTBEAT):
        yield user_ids[first : first + _MOST_A_HEARTBEAT]
