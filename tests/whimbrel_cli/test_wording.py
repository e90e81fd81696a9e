"""What messages of every kind look like on one line."""

from datetime import UTC, datetime

import pytest

from whimbrel.content.v1 import content_pb2 as pb
from whimbrel_cli.wording import words_of
from whimbrel_client import Mark, Message
from whimbrel_client.payload import text


def message(content: pb.Content | None, *, mark: Mark = Mark.NONE) -> Message:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    ids = {"conversation": b"b" * 16, "message_id": b"m" * 16, "sender": b"b" * 16}
    return Message(
        cursor=1, seq=1, sender_device=1, accepted_at=at, content=content, mark=mark, **ids
    )


PICTURE = pb.Media(kind=pb.MEDIA_KIND_IMAGE, name="dunes.jpg", size=3 * 1024 * 1024, caption="Sylt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (text("hello ☕"), "hello ☕"),
        (pb.Content(edit=pb.Edit(text=pb.Text(body="hello"))), "(edited) hello"),
        (pb.Content(delete=pb.Delete()), "(takes a message back)"),
        (pb.Content(reaction=pb.Reaction(emoji="🎉")), "(reacts: 🎉)"),
        (pb.Content(reaction=pb.Reaction()), "(no reaction)"),
        (pb.Content(media=PICTURE), "(picture: dunes.jpg, 3.0 MiB, Sylt)"),
        (pb.Content(media=pb.Media(mime_type="a/b", size=12)), "(file: a/b, 12 bytes)"),
        (pb.Content(contact=pb.Contact(name="Bo", phone_numbers=["+491"])), "(contact: Bo, +491)"),
        (pb.Content(location=pb.Location(latitude=54.9)), "(place: 54.90000, 0.00000)"),
        (pb.Content(poll=pb.Poll(question="Tea?", options=["yes", "no"])), "(poll: Tea? yes / no)"),
        (pb.Content(poll_vote=pb.PollVote()), "(poll vote)"),
        (pb.Content(timer=pb.DisappearingTimer(seconds=60)), "(messages go 60 s after reading)"),
        (pb.Content(timer=pb.DisappearingTimer()), "(messages stay)"),
        (pb.Content.FromString(b"\x9a\x06\x05later"), "(newer than this version)"),
        (None, "(could not be decrypted; asked to be sent again)"),
    ],
)
def test_every_kind_has_words(content: pb.Content | None, words: str) -> None:
    assert words_of(message(content)) == words


def test_a_message_that_was_taken_back_says_so() -> None:
    assert words_of(message(pb.Content(), mark=Mark.DELETED)) == "(taken back)"


@pytest.mark.parametrize(
    "content",
    [
        text("\x1b[2J\u202egone\nfake: line"),
        pb.Content(media=pb.Media(name="\x1b[2J\nfake: line", kind=99)),  # type: ignore[arg-type]
        pb.Content(reaction=pb.Reaction(emoji="\x1b[2J\nfake")),
    ],
)
def test_nothing_that_is_said_moves_the_cursor_or_fakes_a_line(content: pb.Content) -> None:
    words = words_of(message(content))

    assert not {"\x1b", "\n", "\u202e"} & set(words)
