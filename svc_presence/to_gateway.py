"""Presence as it stands on the wire."""

from svc_presence.model import Presence
from whimbrel.presence.v1 import state_pb2


def fill_presence(out: state_pb2.Presence, user_id: bytes, presence: Presence) -> None:
    """Write one person's presence into a message."""
    out.user_id = user_id
    out.state = state_pb2.PresenceState.ValueType(presence.state)
    if presence.last_seen:
        out.last_seen.seconds = presence.last_seen
