"""Which sessions here follow which channels, and what they are told of those.

Filled from the message service: asked for each session once it is open, told of changes, and read
again for some sessions in each round. A post goes to the sessions that have room; a session that
has none is owed where the channel stands, and told once it has. Nothing of this waits for anybody.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mesh.clock import Clock
from mesh.ids import slot_of
from svc_gateway import to_device, to_service
from svc_gateway.attach import Attach, Request
from svc_gateway.sessions import Sessions
from svc_gateway.stream import DeviceStream
from svc_gateway.traces import Traces
from whimbrel.channel.v1 import post_pb2
from whimbrel.message.v1 import attach_pb2

T = TypeVar("T")

_MOST_A_REQUEST = 500
_PAUSE = 0.1


class Followers:
    """The channels of all sessions of this gateway."""

    def __init__(
        self, attach: Attach, sessions: Sessions, *, clock: Clock, traces: Traces | None = None
    ) -> None:
        self._traces = traces
        self._attach = attach
        self._sessions = sessions
        self._clock = clock
        self._streams: dict[bytes, set[DeviceStream]] = {}  # by channel
        self._channels: dict[DeviceStream, set[bytes]] = {}  # of those who follow any
        self._heads: dict[bytes, int] = {}  # of the channels that are followed, as far as heard
        self._owed: dict[DeviceStream, set[bytes]] = {}
        # Whose subscriptions are to be asked for; whose are asked for; the longest not asked first.
        self._unasked: dict[DeviceStream, None] = {}
        self._asked: dict[int, list[DeviceStream]] = {}
        self._by_age: OrderedDict[DeviceStream, None] = OrderedDict()
        self._unknown: set[bytes] = set()  # channels whose heads are to be asked for
        self._wake = asyncio.Event()

    # Sessions.

    def opened(self, stream: DeviceStream) -> None:
        """A session is open: its channels are asked for soon."""
        self._by_age[stream] = None
        self._unasked[stream] = None
        self._wake.set()

    def closed(self, stream: DeviceStream) -> None:
        """A stream is over."""
        self._by_age.pop(stream, None)
        self._unasked.pop(stream, None)
        self._owed.pop(stream, None)
        for channel_id in self._channels.pop(stream, ()):
            self._leave(stream, channel_id)

    # What the message service says unasked.

    def take(self, kind: str, push: Any, trace: bytes = b"") -> None:
        """Take a push that concerns channels."""
        if kind == "channel_post":
            self._post(push, trace)
        elif kind == "channel_heads":
            self._heard(push.heads)
        else:
            self._changed(push)

    def _post(self, post: post_pb2.Post, trace: bytes) -> None:
        """There is a post."""
        followers = self._streams.get(post.channel_id)
        if not followers:
            return
        ring = self._traces.rung(trace) if self._traces is not None and trace else None
        self._heads[post.channel_id] = max(post.seq, self._heads.get(post.channel_id, 0))
        frame = to_device.channel_post(post)
        for stream in followers:
            if not stream.hint(frame):
                self._owe(stream, post.channel_id)
        if ring is not None:
            ring.set("sessions", len(followers))
            ring.end()

    def _heard(self, heads: Iterable[post_pb2.Head]) -> None:
        """Channels stand somewhere: who follows one that is further than was known is told."""
        for head in heads:
            known = self._heads.get(head.channel_id)
            if known is None or head.head_seq <= known:
                continue
            self._heads[head.channel_id] = head.head_seq
            for stream in self._streams[head.channel_id]:
                self._owe(stream, head.channel_id)

    def _changed(self, push: attach_pb2.PushSubscription) -> None:
        """An account has subscribed to a channel, or does so no more."""
        for device in push.devices:
            stream = self._sessions.find((device.user_id, device.device_id))
            if stream is None:
                continue
            channels = set(self._channels.get(stream, ()))
            (channels.add if push.subscribed else channels.discard)(push.channel_id)
            self._set(stream, channels)
            self._forget_asked(stream)  # the answer may be from before

    # Asking.

    def compare(self) -> None:
        """Ask where all channels stand, and for the subscriptions asked for the longest ago."""
        for channel_ids in _slices([*self._heads]):
            self._ask_heads(channel_ids)
        for stream in [*self._by_age][:_MOST_A_REQUEST]:
            self._unasked[stream] = None
        self._wake.set()

    async def run(self) -> None:
        """Ask and tell what is due, in company; ends by cancellation only."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._clock.sleep(_PAUSE)
            streams, self._unasked = [*self._unasked], {}
            for some in _slices(streams):
                self._ask_subscriptions(some)
            unknown, self._unknown = [*self._unknown], set()
            for channel_ids in _slices(unknown):
                self._ask_heads(channel_ids)
            self._pay()

    @property
    def is_over(self) -> bool:
        return False

    def answered(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        """Take an answer; a refusal is made good by the next round."""
        if answer.HasField("channel_heads"):
            self._heard(answer.channel_heads.heads)
            return
        lists = {one.user_id: set(one.channel_ids) for one in answer.subscriptions.lists}
        for stream in self._asked.pop(request.id, ()):
            channels = lists.get(stream.device.user_id)
            if channels is not None and stream in self._by_age:
                self._set(stream, channels)

    def _ask_subscriptions(self, streams: Sequence[DeviceStream]) -> None:
        id_ = self._attach.new_id()
        self._asked[id_] = [*streams]
        for stream in streams:
            self._by_age.move_to_end(stream)
        frame = to_service.fetch_subscriptions(id_, {one.device.user_id for one in streams})
        self._attach.ask(Request(id_, streams[0].service.slot, frame, self))

    def _ask_heads(self, channel_ids: Sequence[bytes]) -> None:
        id_ = self._attach.new_id()
        frame = to_service.fetch_channel_heads(id_, channel_ids)
        self._attach.ask(Request(id_, slot_of(channel_ids[0]), frame, self))

    def _forget_asked(self, stream: DeviceStream) -> None:
        """Ask for the session's channels again, if they are being asked for."""
        for streams in self._asked.values():
            if stream in streams:
                streams.remove(stream)
                self._unasked[stream] = None
                self._wake.set()

    # What is known.

    def _set(self, stream: DeviceStream, channels: set[bytes]) -> None:
        """The session follows these channels, and is told where the new ones stand."""
        before = self._channels.pop(stream, set())
        if channels:
            self._channels[stream] = channels
        for channel_id in before - channels:
            self._leave(stream, channel_id)
        for channel_id in channels - before:
            if channel_id not in self._streams:
                self._streams[channel_id] = set()
                self._heads[channel_id] = 0
                self._unknown.add(channel_id)
                self._wake.set()
            self._streams[channel_id].add(stream)
            self._owe(stream, channel_id)

    def _leave(self, stream: DeviceStream, channel_id: bytes) -> None:
        followers = self._streams[channel_id]
        followers.discard(stream)
        if not followers:
            del self._streams[channel_id], self._heads[channel_id]
            self._unknown.discard(channel_id)

    def _owe(self, stream: DeviceStream, channel_id: bytes) -> None:
        self._owed.setdefault(stream, set()).add(channel_id)
        self._wake.set()

    def _pay(self) -> None:
        """Tell the sessions that have room where their channels stand."""
        for stream, channel_ids in [*self._owed.items()]:
            heads = _standing(self._heads, channel_ids)
            if not heads or stream.hint(to_device.channel_heads(heads)):
                del self._owed[stream]
        if self._owed:
            self._wake.set()


def _standing(heads: Mapping[bytes, int], channel_ids: Iterable[bytes]) -> dict[bytes, int]:
    """Where channels stand that have a post."""
    return {one: heads[one] for one in channel_ids if heads.get(one, 0)}


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), _MOST_A_REQUEST):
        yield items[first : first + _MOST_A_REQUEST]
