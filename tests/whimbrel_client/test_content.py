"""What people say beside words, and who may change it."""

import pytest

from tests.whimbrel_client.conftest import People
from tests.whimbrel_client.fake_gateway import FakeMesh
from tests.whimbrel_client.test_talking import received
from whimbrel.content.v1.content_pb2 import (
    Contact,
    Content,
    DisappearingTimer,
    Location,
    MessageName,
    Poll,
    PollVote,
)
from whimbrel_client import BodyTooLarge, Client, Mark, NotTheAuthor
from whimbrel_client.payload import MAX_CONTENT_BYTES, delete, edit, reaction, reply


async def test_replies_and_reactions_name_the_message_they_belong_to(people: People) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as one, Client.connect(bob) as other:
        sent = await one.send("bob", "hello")
        (hello,) = await received(other, 1)
        await other.send_all("alice", [reply(hello, "hello yourself"), reaction(hello, "👍")])
        answer, sign = await received(one, 2)

    assert answer.content is not None
    assert sign.content is not None
    assert answer.content.reply_to == sent.name == hello.name
    assert (answer.text, sign.kind) == ("hello yourself", "reaction")
    assert (sign.content.reaction.target, sign.content.reaction.emoji) == (sent.name, "👍")


async def test_an_author_edits_and_takes_back_their_own_messages(people: People) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as one, Client.connect(bob) as other:
        first, second = await one.send_all("bob", ["helo", "oops"])
        await received(other, 2)
        await one.send_all("bob", [edit(first, "hello"), delete(second)])
        await received(other, 4)
        at_bob = await received(other, 2)
        at_alice = await one.outgoing()

    assert [(m.text, m.mark) for m in at_bob] == [("hello", Mark.EDITED), (None, Mark.DELETED)]
    assert [(m.text, m.mark) for m in at_alice[:2]] == [
        ("hello", Mark.EDITED),
        (None, Mark.DELETED),
    ]


async def test_nobody_changes_the_message_of_another(people: People) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as one, Client.connect(bob) as other:
        sent = await one.send("bob", "mine")
        (message,) = await received(other, 1)
        with pytest.raises(NotTheAuthor):
            await other.send("alice", edit(message, "yours"))
        with pytest.raises(NotTheAuthor):
            await other.send("alice", delete(message))
        # A client that does not mind: it says that the message is its own.
        forged = Content()
        forged.delete.target.CopyFrom(MessageName(author=other.user_id, id=message.name.id))
        await other.send_all("alice", [forged, "after"])
        await received(one, 2)
        (kept,) = await one.outgoing()

    assert (sent.text, kept.text, kept.mark) == ("mine", "mine", Mark.NONE)


async def test_content_without_words_and_content_of_later_versions_arrives_whole(
    people: People,
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    place = Content(location=Location(latitude=52.5, longitude=13.4, name="here"))
    # Field 99, which nobody knows yet.
    later = Content.FromString(b"\x9a\x06\x05later")

    async with Client.connect(alice) as one, Client.connect(bob) as other:
        await one.send_all("bob", [place, later])
        at_place, unknown = await received(other, 2)

    assert at_place.content is not None
    assert unknown.content is not None
    assert (at_place.kind, at_place.content.location) == ("location", place.location)
    assert (unknown.text, unknown.kind) == (None, "")
    assert b"\x9a\x06\x05later" in unknown.content.SerializeToString()


async def test_what_has_no_words_arrives_as_it_was_sent(people: People) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    contents = [
        Content(contact=Contact(name="Carol", user_id=bytes(16), phone_numbers=["+4915112345678"])),
        Content(location=Location(latitude=-33.9, longitude=18.4, name="the cape")),
        Content(poll=Poll(question="tea?", options=["yes", "no"], most_choices=1)),
        Content(timer=DisappearingTimer(seconds=3600)),
    ]

    async with Client.connect(alice) as one, Client.connect(bob) as other:
        sent = await one.send_all("bob", contents)
        arrived = await received(other, 4)
        vote = Content(poll_vote=PollVote(target=sent[2].name, choices=[1]))
        await other.send_all("alice", [vote])
        (voted,) = await received(one, 1)

    for message, content in zip([*arrived, voted], [*contents, vote], strict=True):
        kind = content.WhichOneof("kind")
        assert message.kind == kind
        assert message.content is not None
        assert getattr(message.content, str(kind)) == getattr(content, str(kind))


async def test_content_that_is_too_large_is_not_queued(people: People) -> None:
    alice, _ = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as client:
        with pytest.raises(BodyTooLarge):
            await client.send_all("bob", ["fits", "x" * MAX_CONTENT_BYTES])

        assert await client.outgoing() == []


async def test_what_a_person_wants_to_be_rung_for_is_urgent_and_nothing_else(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as one, Client.connect(bob) as other:
        sent = await one.send("bob", "hello")
        await received(other, 1)
        before = len(mesh.sends)
        for message in await one.send_all("bob", ["again", reaction(sent, "👍"), edit(sent, "hi")]):
            await one.accepted(message)

    assert [send.urgent for _, send in mesh.sends[before:]] == [True, True, False]
