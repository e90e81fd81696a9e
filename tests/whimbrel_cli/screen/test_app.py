"""The terminal client under Textual's pilot, with a client that says what the test wants."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image
from textual.widgets import Input, Label, Static

from tests.whimbrel_cli.screen.screen import screen_of
from whimbrel.content.v1.content_pb2 import MEDIA_KIND_IMAGE, Content, Media
from whimbrel_cli.screen.app import ChatApp
from whimbrel_cli.screen.drawing import line_of
from whimbrel_cli.screen.panes import DevicesPane, MutePane, SafetyPane
from whimbrel_cli.screen.rehearsal import Rehearsal
from whimbrel_cli.screen.widgets import BubbleRow, BubbleView
from whimbrel_client import DeviceRevoked, Mark
from whimbrel_client.groups.model import Tally
from whimbrel_client.payload import kind_of
from whimbrel_client.presence import Activity, Presence, PresenceState, Writing


@pytest.fixture
def client() -> Rehearsal:
    return Rehearsal("alice", "bob", "carol")


async def test_own_bubbles_stand_right_and_others_left(client: Rehearsal) -> None:
    client.hear("bob", "hello")
    await client.send("bob", "hello yourself")

    async with screen_of(client, client.people["bob"]) as screen:
        await screen.until(lambda: len(screen.bubbles) == 2)
        left, right = (row.view for row in screen.app.query(BubbleRow))
        await screen.until(lambda: bool(left.region and right.region))

        assert [own for own, _, _ in screen.bubbles] == [False, True]
        assert left.region.x < right.region.x


async def test_what_is_written_is_sent_and_its_ticks_change_in_place(client: Rehearsal) -> None:
    client.is_silent = True

    async with screen_of(client, client.people["bob"]) as screen:
        await screen.write("hello [bold]bob[/]")
        await screen.until(lambda: screen.says("hello [bold]bob[/]"))
        waiting = screen.bubbles[0][2]
        await client.answer(client.sent[0])
        await screen.until(lambda: screen.bubbles[0][2] != waiting)
        sent = screen.bubbles[0][2]
        client.receive_receipt("bob", delivered=1, read=1)
        await screen.until(lambda: "✓✓" in screen.bubbles[0][2])
        read = screen.bubbles[0][2]
        written = screen.app.query_one("#words", Input).value

    assert "…" in waiting
    assert "✓" in sent
    assert "#4db5ff" in read
    assert written == ""


async def test_a_picture_is_shown_small_and_its_file_saved(client: Rehearsal) -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (90, 60), "#ff0000").save(jpeg, "JPEG")
    media = Media(kind=MEDIA_KIND_IMAGE, name="shore.jpg", size=9, thumbnail=jpeg.getvalue())
    client.hear("bob", Content(media=media))
    client.hear("bob", Content(media=Media(name="no picture", thumbnail=b"<html>")))
    client.hear("bob", "words")

    async with screen_of(client, client.people["bob"]) as screen:
        await screen.until(lambda: len(screen.bubbles) == 3 and all(b[1] for b in screen.bubbles))
        with_picture, without, _ = (words for _, words, _ in screen.bubbles)
        await screen.focus("shore.jpg")
        await screen.pilot.press("s")
        await screen.until(lambda: "shore.jpg" in _told(screen.app))
        await screen.focus("words")
        await screen.pilot.press("s")
        await screen.until(lambda: "the message has no file" in _told(screen.app))

    assert with_picture.count("▀") == 32 * 10
    assert "▀" not in without


def _told(app: ChatApp) -> str:
    return " ".join(one.message for one in app._notifications)


async def test_a_group_shows_who_writes_and_how_many_have_what_was_said(client: Rehearsal) -> None:
    group = client.make_group("Hike")
    client.hear("bob", "who comes?", group=group)
    client.hear("carol", "me", group=group)

    async with screen_of(client, group.group_id) as screen:
        await screen.until(lambda: len(screen.bubbles) == 2)
        await screen.write("me too")
        await screen.until(lambda: screen.says("me too"))
        client.tally(group, Tally(2, 1, 2))
        await screen.until(lambda: "delivered 2/2 read 1/2" in screen.bubbles[2][2])
        words = [words for _, words, _ in screen.bubbles]
        line = screen.lines[0]

    assert words == ["bob\nwho comes?", "carol\nme", "me too"]
    assert "Hike" in line


async def test_unread_messages_are_counted_until_their_conversation_is_opened(
    client: Rehearsal,
) -> None:
    client.hear("bob", "hello")
    client.hear("carol", "one")
    client.hear("carol", "two")

    async with screen_of(client, client.people["bob"]) as screen:
        await screen.until(lambda: any("2" in line for line in screen.lines))
        before = dict(client.read)
        await screen.pilot.press("ctrl+down")
        await screen.until(lambda: screen.says("two"))
        await screen.until(lambda: not any("2" in line for line in screen.lines))

    assert client.people["carol"] not in before
    assert client.read[client.people["carol"]] == 2


async def test_a_message_is_signed_answered_edited_and_taken_back_by_keys(
    client: Rehearsal,
) -> None:
    client.hear("bob", "well?")
    await client.send("bob", "helo")

    async with screen_of(client, client.people["bob"]) as screen:
        await screen.focus("well?")
        await screen.pilot.press("r")
        await screen.pilot.press("2")
        await screen.until(lambda: screen.says("❤"))
        await screen.focus("well?")
        await screen.pilot.press("a")
        await screen.write("well!")
        await screen.until(lambda: screen.says("│ well?"))
        await screen.focus("helo")
        await screen.pilot.press("e")
        await screen.write("hello")
        await screen.until(lambda: screen.says("hello"))
        await screen.focus("hello")
        await screen.pilot.press("d")
        await screen.until(lambda: screen.says("taken back"))

    kinds = [kind_of(message.content) for message in client.sent if message.content]
    assert kinds == ["text", "reaction", "text", "edit", "delete"]


async def test_the_message_of_another_cannot_be_edited(client: Rehearsal) -> None:
    client.hear("bob", "mine")

    async with screen_of(client, client.people["bob"]) as screen:
        await screen.focus("mine")
        await screen.pilot.press("e", "d")
        await screen.pilot.pause()
        bubble = screen.app.chats[client.people["bob"]].bubbles[0]

    assert (bubble.words, bubble.mark, client.sent) == ("mine", Mark.NONE, [])


async def test_search_opens_the_conversation_at_the_message(client: Rehearsal) -> None:
    client.hear("bob", "hello")
    client.hear("carol", "the ferry leaves at nine")

    async with screen_of(client, client.people["bob"]) as screen:
        await screen.until(lambda: len(screen.lines) == 2)
        await screen.pilot.press("ctrl+f", *"ferry")
        await screen.until(lambda: bool(screen.app.screen.query("#found ListItem")))
        await screen.pilot.press("enter")
        await screen.until(lambda: isinstance(screen.app.focused, BubbleView))
        focused = screen.app.focused

    assert isinstance(focused, BubbleView)
    assert "ferry" in str(focused.content)


async def test_the_safety_number_is_shown_as_code_and_digits(client: Rehearsal) -> None:
    client.hear("bob", "hello")
    client.change_identity("bob")

    async with screen_of(client, client.people["bob"]) as screen:
        warning = screen.app.query_one("#warning", Label)
        await screen.until(lambda: warning.display)
        await screen.pilot.press("f2")
        await screen.until(lambda: isinstance(screen.app.screen, SafetyPane))
        await screen.pilot.pause()
        code, digits = screen.shown("#qr"), screen.shown("#digits")
        await screen.pilot.press("escape")
        await screen.until(lambda: not warning.display)

    number = await client.safety_number(client.people["bob"])
    assert digits.replace(" ", "").replace("\n", "") == number.digits()
    assert set(code) == set(" ▀▄█\n")


async def test_another_identity_is_told_of_once_and_not_again_at_the_next_start(
    client: Rehearsal,
) -> None:
    client.hear("bob", "hello")
    client.hear("carol", "hello")
    client.change_identity("bob")

    async with screen_of(client, client.people["carol"]) as screen:
        await screen.until(lambda: any("bob !" in line for line in screen.lines))
    async with screen_of(client, client.people["bob"]) as screen:
        warning = screen.app.query_one("#warning", Label)
        await screen.until(lambda: warning.display)
    async with screen_of(client, client.people["bob"]) as screen:
        client.hear("bob", "are you there?")
        await screen.until(lambda: screen.says("are you there?"))
        again = screen.app.query_one("#warning", Label).display
        client.change_identity("bob")
        await screen.until(lambda: bool(screen.app.query_one("#warning", Label).display))

    assert not again


async def test_a_muted_conversation_says_until_when_and_is_not_highlighted(
    client: Rehearsal,
) -> None:
    client.hear("bob", "hello")
    client.hear("carol", "hello")

    async with screen_of(client, client.people["bob"]) as screen:
        await screen.until(
            lambda: any("carol" in line and "hello" in line for line in screen.lines)
        )
        chat = screen.app.chats[client.people["carol"]]
        before = line_of(chat, UTC)
        await screen.pilot.press("ctrl+down", "f4")
        await screen.until(lambda: isinstance(screen.app.screen, MutePane))
        await screen.pilot.press("3")
        await screen.until(lambda: any("muted until" in line for line in screen.lines))
        chat.read_up_to = 0
        has_unread, after = chat.unread, line_of(chat, UTC)
        await screen.pilot.press("f4")
        await screen.until(lambda: isinstance(screen.app.screen, MutePane))
        await screen.pilot.press("0")
        await screen.until(lambda: not any("muted until" in line for line in screen.lines))

    assert has_unread
    assert "$success" in before.markup
    assert "$success" not in after.markup
    assert f"{datetime.now(UTC) + timedelta(weeks=1):%Y-%m-%d}" in after.plain


async def test_what_the_primary_handed_over_stands_before_what_came(client: Rehearsal) -> None:
    early, late = client.hear("bob", "before the link"), client.hear("bob", "after the link")
    client._received.all.remove(early)
    client.history.all.append(early)

    async with screen_of(client, client.people["bob"]) as screen:
        said = [early.text, late.text]
        await screen.until(lambda: [words for _, words, _ in screen.bubbles] == said)


async def test_there_is_no_safety_number_before_the_first_message(client: Rehearsal) -> None:
    async with screen_of(client, client.people["bob"]) as screen:
        await screen.pilot.press("f2")
        await screen.until(lambda: len(screen.app._notifications) == 1)

        assert not isinstance(screen.app.screen, SafetyPane)


async def test_the_own_devices_are_listed(client: Rehearsal) -> None:
    async with screen_of(client, client.people["bob"]) as screen:
        await screen.pilot.press("f3")
        await screen.until(lambda: isinstance(screen.app.screen, DevicesPane))
        await screen.pilot.pause()
        lines = [str(line.content) for line in screen.app.screen.query(".device").results(Static)]

    assert "primary, this one" in lines[0]
    assert "laptop, linked" in lines[1]
    assert "last seen never" in lines[1]


async def test_a_new_conversation_is_begun_by_handle(client: Rehearsal) -> None:
    async with screen_of(client) as screen:
        await screen.pilot.press("ctrl+n", *"nobody", "enter")
        await screen.until(lambda: len(screen.app._notifications) == 1)
        await screen.pilot.press("ctrl+n", *"carol", "enter")
        await screen.until(lambda: screen.shown("#peer") == "carol")
        await screen.write("hi")
        await screen.until(lambda: screen.says("hi"))

    assert [message.conversation for message in client.sent] == [client.people["carol"]]


async def test_a_new_conversation_is_begun_by_number(client: Rehearsal) -> None:
    client.numbers["+4915112345678"] = "carol"

    async with screen_of(client) as screen:
        await screen.pilot.press("ctrl+n", *"+4915112345678", "enter")
        await screen.until(lambda: screen.shown("#peer") == "carol")


async def test_the_connection_is_told_as_it_is(client: Rehearsal) -> None:
    async with screen_of(client, client.people["bob"]) as screen:
        await screen.until(lambda: "localhost:50051" in screen.shown("#connection"))
        client.gateway = None
        await screen.until(lambda: "waiting for the mesh" in screen.shown("#connection"))


async def test_a_device_that_is_revoked_ends_the_screen_and_says_so(client: Rehearsal) -> None:
    async with screen_of(client, client.people["bob"]) as screen:
        await screen.pilot.pause()
        client.end(DeviceRevoked("DEVICE_REVOKED"))
        await screen.until(lambda: screen.app.return_value is not None)

    assert isinstance(screen.app.return_value, DeviceRevoked)


async def test_the_open_chat_shows_who_is_there_and_who_writes(client: Rehearsal) -> None:
    bob, carol = client.people["bob"], client.people["carol"]
    client.hear("bob", "hello")
    client.hear("carol", "hello")
    told = client.presences.told[bob].add

    async with screen_of(client, bob) as screen:
        told(Presence(bob, PresenceState.ONLINE))
        await screen.until(lambda: screen.shown("#peer") == "bob   online")
        told(Writing(bob, Activity.RECORDING))
        await screen.until(lambda: screen.shown("#peer") == "bob   recording…")
        told(Writing(bob, Activity.STOPPED))
        told(Presence(bob, PresenceState.OFFLINE, datetime(2026, 3, 27, 21, 4, tzinfo=UTC)))
        await screen.until(lambda: screen.shown("#peer") == "bob   last seen 2026-03-27 21:04")
        screen.app.query_one("#words", Input).value = "hel"
        await screen.until(lambda: client.presences.wrote != [])
        screen.app.action_turn(1)
        await screen.until(lambda: client.presences.watched == (carol, False))

        assert client.presences.wrote[-1] == (bob, False, Activity.TYPING)
        await screen.until(lambda: screen.shown("#peer") == "carol")
