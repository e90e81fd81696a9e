"""The envelope of all stored state: one version byte, then a protobuf message."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError, Message

from whimbrel.crypto.v1 import state_pb2
from whimbrel_client.crypto.errors import MalformedState, StateTooNew

VERSION = 1


def dump(state: Message) -> bytes:
    """Return the stored form."""
    return bytes((VERSION,)) + state.SerializeToString()


def load(state: Message, stored: bytes) -> None:
    """Fill the message from its stored form; raises MalformedState or StateTooNew."""
    if not stored or stored[0] == 0:
        raise MalformedState("no state is stored")
    if stored[0] > VERSION:
        raise StateTooNew(f"the state has version {stored[0]}")
    try:
        state.ParseFromString(stored[1:])
    except DecodeError as error:
        raise MalformedState("the stored state is damaged") from error


def skipped_states(skipped: Mapping[int, bytes]) -> list[state_pb2.SkippedKey]:
    """Keep the keys in their order: the oldest are given up first."""
    return [state_pb2.SkippedKey(index=index, key=key) for index, key in skipped.items()]
