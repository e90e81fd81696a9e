"""What presence is made of."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class State(IntEnum):
    """Whether somebody is there, numbered as on the wire."""

    ONLINE = 1
    OFFLINE = 2
    HIDDEN = 3


class Activity(IntEnum):
    """What somebody does in a chat, numbered as on the wire."""

    TYPING = 1
    RECORDING = 2
    STOPPED = 3


@dataclass(frozen=True, slots=True)
class Presence:
    """One person's presence as somebody may see it.

    `last_seen`: in seconds since the epoch, for OFFLINE; 0 if it is not known.
    """

    state: State
    last_seen: int = 0


HIDDEN = Presence(State.HIDDEN)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the watcher of a chat may learn: of the other's presence, and that they write."""

    is_visible: bool
    is_told_typing: bool
    last_seen_seconds: int = 60  # to which the time of the last presence is rounded down


class Chat(NamedTuple):
    """What is watched: a person (the direct chat with them), or a group."""

    id: bytes
    is_group: bool = False


class Viewing(NamedTuple):
    """A chat, and who has it open."""

    chat: Chat
    watcher_id: bytes
