"""What a person is told before a report is made."""

from datetime import UTC, datetime

from whimbrel_cli.report import _told
from whimbrel_client import Message, ReportReason
from whimbrel_client.payload import text

AT = datetime(2026, 1, 1, tzinfo=UTC)


def said(words: str) -> Message:
    ids = {"conversation": b"b" * 16, "message_id": b"m" * 16, "sender": b"b" * 16}
    return Message(cursor=1, seq=1, sender_device=1, accepted_at=AT, content=text(words), **ids)


def test_each_message_is_one_line_in_the_time_of_this_machine() -> None:
    told = _told("alice", "bob", ReportReason.SPAM, [said("buy"), said("now")])

    assert told.splitlines()[1:] == [
        f"  {AT.astimezone():%Y-%m-%d %H:%M}  buy",
        f"  {AT.astimezone():%Y-%m-%d %H:%M}  now",
    ]


def test_what_is_reported_moves_no_cursor_and_fakes_no_line() -> None:
    told = _told("alice", "bob", ReportReason.SPAM, [said("\x1b[2J\u202egone\nfake: line")])

    assert len(told.splitlines()) == 2
    assert not {"\x1b", "\u202e"} & set(told)
