"""What stands beside the title of the open chat."""

from datetime import UTC, datetime, timedelta

import pytest

from whimbrel_cli.screen.life import Life
from whimbrel_client.presence import Activity, Presence, PresenceState, Writing

NOW = datetime(2026, 3, 27, 21, 4, tzinfo=UTC)
BOB, CAROL = b"b" * 16, b"c" * 16
ONLINE = Presence(BOB, PresenceState.ONLINE)


def offline(ago: timedelta | None) -> Presence:
    return Presence(BOB, PresenceState.OFFLINE, None if ago is None else NOW - ago)


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ([], ""),
        ([ONLINE], "online"),
        ([Presence(BOB, PresenceState.HIDDEN)], ""),
        ([offline(None)], "offline"),
        ([offline(timedelta(hours=1))], "last seen today 20:04"),
        ([offline(timedelta(days=1))], "last seen 2026-03-26 21:04"),
        ([ONLINE, Writing(BOB, Activity.TYPING)], "typing…"),
        ([ONLINE, Writing(BOB, Activity.TYPING), Writing(BOB, Activity.STOPPED)], "online"),
        ([Writing(CAROL, Activity.TYPING), Writing(BOB, Activity.STOPPED)], "carol is typing…"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_known_is_said_in_words(signs: list, words: str) -> None:
    life = Life()

    for sign in signs:
        life.note(sign)

    assert life.words({CAROL: "carol"}, now=NOW, zone=UTC) == words
