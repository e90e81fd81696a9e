"""What is known of the people in the open chat: whether they are there, and who writes."""

from collections.abc import Mapping
from datetime import datetime, tzinfo

from whimbrel_cli.wording import last_seen_words
from whimbrel_client.presence import Activity, Presence, PresenceState, Sign, Writing

_DOING = {Activity.TYPING: "typing…", Activity.RECORDING: "recording…"}


class Life:
    """The signs of life in one chat."""

    def __init__(self) -> None:
        self._presence: Presence | None = None
        self._writing: dict[bytes, Activity] = {}

    def note(self, sign: Sign) -> None:
        """Take what the SDK tells."""
        match sign:
            case Presence():
                self._presence = sign
            case Writing(user_id, Activity.STOPPED):
                self._writing.pop(user_id, None)
            case Writing(user_id, activity):
                self._writing[user_id] = activity

    def words(self, names: Mapping[bytes, str], *, now: datetime, zone: tzinfo | None) -> str:
        """What stands beside the title: who writes, else who is there; `names`: of a group."""
        if self._writing:
            user_id, activity = next(reversed(self._writing.items()))
            name = names.get(user_id)
            return f"{name} is {_DOING[activity]}" if name else _DOING[activity]
        if self._presence is None or self._presence.state is PresenceState.HIDDEN:
            return ""
        if self._presence.state is PresenceState.ONLINE:
            return "online"
        return last_seen_words(self._presence.last_seen, now=now, zone=zone)
