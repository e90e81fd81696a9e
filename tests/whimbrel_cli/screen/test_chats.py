"""The view model alone: what the SDK tells becomes what a person sees."""

import pytest

from whimbrel.content.v1.content_pb2 import Content, Location, MessageName
from whimbrel_cli.screen.chats import Chat
from whimbrel_cli.screen.rehearsal import Rehearsal
from whimbrel_client import Mark, Tick
from whimbrel_client.payload import delete, edit, reaction, reply


@pytest.fixture
def client() -> Rehearsal:
    return Rehearsal("alice", "bob")


@pytest.fixture
def chat(client: Rehearsal) -> Chat:
    return Chat(client.people["bob"], client.user_id, "bob")


async def test_the_mesh_decides_the_order_and_what_waits_comes_last(
    client: Rehearsal, chat: Chat
) -> None:
    client.is_silent = True
    waiting = await client.send("bob", "written first")
    chat.said(waiting)
    chat.received(client.hear("bob", "accepted first"))

    before = [bubble.words for bubble in chat.bubbles]
    await client.answer(waiting)
    chat.settled(waiting)
    chat.received(client.hear("bob", "last"))

    assert before == ["accepted first", "written first"]
    assert [bubble.words for bubble in chat.bubbles] == ["accepted first", "written first", "last"]


async def test_ticks_follow_what_became_of_a_message(client: Rehearsal, chat: Chat) -> None:
    client.is_silent = True
    message = await client.send("bob", "hello")
    chat.said(message)
    (bubble,) = chat.bubbles
    ticks = [bubble.tick]

    await client.answer(message)
    chat.settled(message)
    ticks.append(bubble.tick)
    for read in (0, 1):
        chat.receipted(client.receive_receipt("bob", delivered=1, read=read))
        ticks.append(bubble.tick)

    assert ticks == [Tick.WAITING, Tick.SENT, Tick.DELIVERED, Tick.READ]


async def test_a_receipt_that_is_known_before_the_message_counts(
    client: Rehearsal, chat: Chat
) -> None:
    message = await client.send("bob", "of an earlier run")

    chat.receipted(client.receive_receipt("bob", delivered=1, read=1))
    chat.said(message)

    assert chat.bubbles[0].tick is Tick.READ


async def test_a_refused_message_says_why(client: Rehearsal, chat: Chat) -> None:
    client.is_silent = True
    message = await client.send("bob", "hello")
    chat.said(message)

    await client.answer(message, reason="RECIPIENT_UNKNOWN")
    chat.settled(message)

    assert "RECIPIENT_UNKNOWN" in chat.bubbles[0].trouble
    assert not chat.bubbles[0].can_change


async def test_unread_is_what_others_wrote_and_nobody_read(client: Rehearsal, chat: Chat) -> None:
    first = client.hear("bob", "one")
    own = await client.send("bob", "mine")
    chat.received(first)
    chat.said(own)
    chat.received(client.hear("bob", reaction(own, "👍")))
    chat.received(client.hear("bob", "two"))
    everything = chat.unread

    chat.read_up_to = first.seq

    assert (everything, chat.unread) == (2, 1)
    assert chat.last_seq == 4


async def test_a_person_has_one_sign_on_a_message_the_latest(client: Rehearsal, chat: Chat) -> None:
    heard = client.hear("bob", "hello")
    chat.received(heard)
    for sign in ("👍", "🎉"):
        chat.said(await client.send("bob", reaction(heard, sign)))
    signs = dict(chat.bubbles[0].signs)

    chat.said(await client.send("bob", reaction(heard, "")))

    assert signs == {client.user_id: "🎉"}
    assert chat.bubbles[0].signs == {}
    assert len(chat.bubbles) == 1


async def test_an_author_edits_and_takes_back_and_nothing_comes_back(
    client: Rehearsal, chat: Chat
) -> None:
    heard = client.hear("bob", "helo")
    chat.received(heard)
    chat.received(client.hear("bob", edit(heard, "hello")))
    edited = (chat.bubbles[0].words, chat.bubbles[0].mark)

    chat.received(client.hear("bob", delete(heard)))
    chat.received(client.hear("bob", edit(heard, "again")))

    assert edited == ("hello", Mark.EDITED)
    assert (chat.bubbles[0].words, chat.bubbles[0].mark) == (None, Mark.DELETED)


async def test_nobody_changes_the_message_of_another(client: Rehearsal, chat: Chat) -> None:
    own = await client.send("bob", "mine")
    chat.said(own)

    chat.received(client.hear("bob", edit(own, "yours")))
    chat.received(client.hear("bob", delete(own)))

    assert (chat.bubbles[0].words, chat.bubbles[0].mark) == ("mine", Mark.NONE)


async def test_a_change_that_comes_before_its_message_is_done_when_it_comes(
    client: Rehearsal, chat: Chat
) -> None:
    heard = client.hear("bob", "helo")

    chat.received(client.hear("bob", edit(heard, "hello")))
    chat.said(await client.send("bob", reaction(heard, "👍")))
    chat.received(heard)

    (bubble,) = chat.bubbles
    assert (bubble.words, bubble.signs) == ("hello", {client.user_id: "👍"})


async def test_an_answer_knows_what_it_answers(client: Rehearsal, chat: Chat) -> None:
    heard = client.hear("bob", "well?")
    chat.received(heard)

    chat.said(await client.send("bob", reply(heard, "well!")))

    answered = chat.bubble(chat.bubbles[1].answers)
    assert answered is chat.bubbles[0]


async def test_what_has_no_words_is_named_and_what_is_unknown_too(
    client: Rehearsal, chat: Chat
) -> None:
    chat.received(client.hear("bob", Content(location=Location(name="here"))))
    chat.received(client.hear("bob", Content.FromString(b"\x9a\x06\x05later")))

    assert [bubble.text for bubble in chat.bubbles] == [
        "(place: here, 0.00000, 0.00000)",
        "(newer than this version)",
    ]


async def test_words_cannot_move_the_cursor_nor_turn_the_writing(
    client: Rehearsal, chat: Chat
) -> None:
    chat.received(client.hear("bob", "\x1b[2Jgone\u202e\nnext"))

    assert chat.bubbles[0].words == "\ufffd[2Jgone\ufffd\nnext"


async def test_search_finds_words_in_any_case_the_newest_first(
    client: Rehearsal, chat: Chat
) -> None:
    for words in ("Storm ahead", "calm", "after the storm"):
        chat.received(client.hear("bob", words))

    assert [bubble.words for bubble in chat.found("STORM")] == ["after the storm", "Storm ahead"]


async def test_a_change_of_what_is_not_here_does_nothing(client: Rehearsal, chat: Chat) -> None:
    forged = Content()
    forged.delete.target.CopyFrom(MessageName(author=client.people["bob"], id=b"nowhere"))

    chat.received(client.hear("bob", forged))

    assert chat.bubbles == []
