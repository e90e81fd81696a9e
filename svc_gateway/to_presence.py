"""What a gateway says to the presence service, each encoded as a frame of one event."""

from collections.abc import Iterable

from svc_gateway.reads import Peer
from whimbrel.presence.v1 import presence_pb2, state_pb2


def hello(instance_id: str) -> bytes:
    """Who attaches."""
    frame = presence_pb2.AttachRequest()
    frame.events.add().hello.instance_id = instance_id
    return frame.SerializeToString()


def heartbeat(user_ids: Iterable[bytes]) -> bytes:
    """These have sessions here."""
    frame = presence_pb2.AttachRequest()
    frame.events.add().heartbeat.user_ids.extend(user_ids)
    return frame.SerializeToString()


def gone(user_id: bytes) -> bytes:
    """Somebody has none here any more."""
    frame = presence_pb2.AttachRequest()
    frame.events.add().gone.user_ids.append(user_id)
    return frame.SerializeToString()


def watch(watcher_id: bytes, peers: Iterable[Peer]) -> bytes:
    """Somebody has opened chats."""
    frame = presence_pb2.AttachRequest()
    _fill(frame.events.add().watch, watcher_id, peers)
    return frame.SerializeToString()


def unwatch(watcher_id: bytes, peers: Iterable[Peer]) -> bytes:
    """Somebody has closed chats."""
    frame = presence_pb2.AttachRequest()
    _fill(frame.events.add().unwatch, watcher_id, peers)
    return frame.SerializeToString()


def writing(user_id: bytes, peer: Peer, activity: state_pb2.Activity.ValueType) -> bytes:
    """Somebody writes."""
    frame = presence_pb2.AttachRequest()
    event = frame.events.add().writing
    event.user_id, event.activity = user_id, activity
    kind, id_ = peer
    if kind == "group_id":
        event.group_id = id_
    else:
        event.peer_id = id_
    return frame.SerializeToString()


def _fill(out: presence_pb2.WatchChats, watcher_id: bytes, peers: Iterable[Peer]) -> None:
    out.watcher_id = watcher_id
    for kind, id_ in peers:
        (out.group_ids if kind == "group_id" else out.user_ids).append(id_)
