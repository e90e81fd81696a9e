"""Histories between two stores: whatever comes when and how often, the new one has it once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel.content.v1.content_pb2 import Content, Delete, Edit, MessageName, Text
from whimbrel.content.v1.history_pb2 import History, HistoryRequest
from whimbrel_client.changes import change
from whimbrel_client.held import Held
from whimbrel_client.history import imports, offers
from whimbrel_client.schema import MIGRATIONS
from whimbrel_client.sessions import DeviceId
from whimbrel_client.sqlcipher import Connection, connect_with

OWN = b"o" * 16
PHONE, LAPTOP = DeviceId(OWN, 1), DeviceId(OWN, 2)
TOKEN = b"t" * 16
PEERS = [bytes([number]) * 16 for number in (1, 2, 3)]

ADD_RECEIVED = """
INSERT INTO message (conversation, seq, message_id, sender, sender_device, accepted_at, type,
    ciphertext, content, content_id) VALUES (?, ?, ?, ?, 1, ?, 2, x'', ?, ?)
"""
ADD_SAID = """
INSERT INTO outgoing (conversation, client_message_id, send, content, state, seq, message_id,
    accepted_at) VALUES (?, ?, x'', ?, 1, ?, ?, ?)
"""
KEPT = """
SELECT conversation, seq, message_id, sender, accepted_at, content FROM message
WHERE state < 2 ORDER BY conversation, seq
"""
SAID = "SELECT conversation, seq, message_id, ?, accepted_at, content FROM outgoing"


class Device(NamedTuple):
    """A store, and what it holds."""

    connection: Connection
    held: Held

    def receives(self, peer: bytes, seq: int, content: Content, *, sender: bytes) -> None:
        """A message comes by itself; an edit or a deletion is done."""
        if not self.held.add(self.connection, peer, seq):
            return
        self.held.save(self.connection)
        row = (peer, seq, _id(peer, seq), sender, 1000 * seq, content.SerializeToString())
        self.connection.execute(ADD_RECEIVED, (*row, content.id))
        if content.HasField("edit") or content.HasField("delete"):
            change(self.connection, peer, content)

    def says(self, peer: bytes, seq: int, content: Content) -> None:
        """The person says something on this device, and the mesh has it."""
        assert self.held.add(self.connection, peer, seq)
        self.held.save(self.connection)
        body = content.SerializeToString()
        row = (peer, content.id, body, seq, _id(peer, seq), 1000 * seq)
        self.connection.execute(ADD_SAID, row)

    def kept(self) -> list[tuple[object, ...]]:
        """All that a person sees, in order."""
        received = self.connection.execute(KEPT).fetchall()
        return sorted(received + self.connection.execute(SAID, (OWN,)).fetchall())

    def takes(self, part: History) -> HistoryRequest | None:
        """What it asks for after the part."""
        asking = imports.take(self.connection, self.held, LAPTOP, part)
        self.held.save(self.connection)
        return None if asking is None else asking.history_request

    def answers(self, request: HistoryRequest, device: int = 2) -> History | None:
        """The part that it gives."""
        part = offers.answer(self.connection, PHONE, device, request)
        return None if part is None else part.history


@contextmanager
def device() -> Iterator[Device]:
    connection = connect_with(None, Path(":memory:"))
    for script in MIGRATIONS:
        connection.executescript(script)
    yield Device(connection, Held())
    connection.close()


@contextmanager
def phone_and_laptop(*, since_ms: int = 0) -> Iterator[tuple[Device, Device, HistoryRequest]]:
    """The laptop's first question is there as well."""
    with device() as phone, device() as laptop:
        offers.offer(phone.connection, TOKEN, since_ms=since_ms, now_ms=0)
        imports.expect(laptop.connection, LAPTOP, TOKEN, now_ms=0)
        asking = imports.request(laptop.connection)
        assert asking is not None
        yield phone, laptop, asking.history_request


def words(body: str, peer: bytes, seq: int) -> Content:
    return Content(id=_id(peer, seq), text=Text(body=body))


def _id(peer: bytes, seq: int) -> bytes:
    return bytes([seq]) * 8 + peer[:8]


class Wire:
    """What the two have said to each other, and the other has not heard yet."""

    def __init__(self, phone: Device, laptop: Device, asking: HistoryRequest) -> None:
        self._phone, self._laptop = phone, laptop
        self.waiting: list[HistoryRequest | History] = [asking]

    def deliver(self, *, twice: bool = False) -> None:
        """The next of it arrives; twice, if so."""
        if not self.waiting:
            return
        one = self.waiting[0] if twice else self.waiting.pop(0)
        answer: HistoryRequest | History | None
        if isinstance(one, HistoryRequest):
            answer = self._phone.answers(one)
        else:
            answer = self._laptop.takes(one)
        if answer is not None:
            self.waiting.append(answer)

    def restart(self) -> None:
        """The laptop starts again, and asks for what it lacks."""
        asking = imports.request(self._laptop.connection)
        if asking is not None:
            self.waiting.append(asking.history_request)


peers = st.sampled_from(PEERS)
before_the_link = st.lists(st.tuples(peers, st.sampled_from(["said", "came"])), max_size=40)
steps = st.lists(st.sampled_from(["deliver", "twice", "restart", "late"]), max_size=30)


@settings(max_examples=60)
@given(before=before_the_link, steps=steps, room=st.integers(1, 600), late_to=peers)
def test_the_laptop_has_what_the_phone_has_whatever_comes_twice_or_meanwhile(
    before: list[tuple[bytes, str]], steps: list[str], room: int, late_to: bytes
) -> None:
    with pytest.MonkeyPatch.context() as patch, phone_and_laptop() as (phone, laptop, asking):
        patch.setattr(offers, "PART_BYTES", room)
        for seq, (peer, how) in enumerate(before, start=1):
            content = words(f"{seq}", peer, seq)
            if how == "said":
                phone.says(peer, seq, content)
            else:
                phone.receives(peer, seq, content, sender=peer)
        wire, seq = Wire(phone, laptop, asking), len(before)

        for step in steps:
            if step == "late":
                seq += 1
                for either in (phone, laptop):
                    content = words(f"{seq}", late_to, seq)
                    either.receives(late_to, seq, content, sender=late_to)
            elif step == "restart":
                wire.restart()
            else:
                wire.deliver(twice=step == "twice")
        while wire.waiting:
            wire.deliver()

        assert laptop.kept() == phone.kept()
        assert imports.progress(laptop.connection).is_complete
        assert not offers.count_open(phone.connection)


def move(phone: Device, laptop: Device, asking: HistoryRequest) -> None:
    wire = Wire(phone, laptop, asking)
    while wire.waiting:
        wire.deliver()


def test_history_lies_before_what_came_by_itself_the_oldest_first() -> None:
    with phone_and_laptop() as (phone, laptop, asking):
        for seq in range(1, 6):
            phone.receives(PEERS[0], seq, words(f"{seq}", PEERS[0], seq), sender=PEERS[0])
        laptop.receives(PEERS[0], 5, words("5", PEERS[0], 5), sender=PEERS[0])
        move(phone, laptop, asking)

        rows = laptop.connection.execute("SELECT cursor, seq FROM message ORDER BY cursor")
        assert rows.fetchall() == [(-4, 1), (-3, 2), (-2, 3), (-1, 4), (1, 5)]


@pytest.mark.parametrize("kind", ["edit", "delete"])
def test_a_change_that_comes_before_what_it_changes_is_done(kind: str) -> None:
    peer = PEERS[0]
    said, target = words("wrong", peer, 1), MessageName(author=peer, id=_id(peer, 1))
    change_of_it = (
        Content(id=_id(peer, 2), edit=Edit(target=target, text=Text(body="right")))
        if kind == "edit"
        else Content(id=_id(peer, 2), delete=Delete(target=target))
    )
    with phone_and_laptop() as (phone, laptop, asking):
        phone.receives(peer, 1, said, sender=peer)
        laptop.receives(peer, 2, change_of_it, sender=peer)
        part = phone.answers(asking)
        phone.receives(peer, 2, change_of_it, sender=peer)
        assert part is not None
        laptop.takes(part)

        assert laptop.kept() == phone.kept()
        ((body,),) = laptop.connection.execute("SELECT content FROM message WHERE seq = 1")
        assert b"wrong" not in body


def test_only_what_is_young_enough_moves_but_every_conversation_does() -> None:
    with phone_and_laptop(since_ms=3000) as (phone, laptop, asking):
        for seq in range(1, 5):
            phone.receives(PEERS[0], seq, words(f"{seq}", PEERS[0], seq), sender=PEERS[0])
        phone.receives(PEERS[1], 1, words("old", PEERS[1], 1), sender=PEERS[1])
        move(phone, laptop, asking)

        places = [row[:2] for row in laptop.kept()]
        known = laptop.connection.execute("SELECT conversation FROM reading").fetchall()
    assert places == [(PEERS[0], 3), (PEERS[0], 4)]
    assert [row[0] for row in known] == PEERS[:2]


def test_of_a_group_it_moves_who_said_what_and_it_goes_on_from_there() -> None:
    group, later = b"g" * 16, words("now", b"g" * 16, 5)
    with phone_and_laptop() as (phone, laptop, asking):
        for seq, sender in enumerate([PEERS[0], PEERS[1], PEERS[0]], start=1):
            phone.receives(group, seq, words(f"{seq}", group, seq), sender=sender)
        phone.says(group, 4, words("mine", group, 4))
        laptop.receives(group, 5, later, sender=PEERS[2])
        phone.receives(group, 5, later, sender=PEERS[2])
        move(phone, laptop, asking)

        said = [(row[1], row[3]) for row in laptop.kept()]
        assert laptop.kept() == phone.kept()
    assert said == [(1, PEERS[0]), (2, PEERS[1]), (3, PEERS[0]), (4, OWN), (5, PEERS[2])]


def test_where_nothing_is_to_move_only_the_conversations_are_told() -> None:
    with phone_and_laptop(since_ms=10_000) as (phone, laptop, asking):
        phone.receives(PEERS[0], 1, words("1", PEERS[0], 1), sender=PEERS[0])
        phone.says(b"g" * 16, 2, words("2", b"g" * 16, 2))
        move(phone, laptop, asking)

        assert laptop.kept() == []
        known = laptop.connection.execute("SELECT conversation FROM reading ORDER BY 1").fetchall()
    assert [row[0] for row in known] == [PEERS[0], b"g" * 16]


def test_what_cannot_be_read_moves_as_that_and_is_replaced_once_it_can() -> None:
    with phone_and_laptop() as (phone, laptop, asking):
        phone.receives(PEERS[0], 1, words("1", PEERS[0], 1), sender=PEERS[0])
        phone.connection.execute("UPDATE message SET state = 1, content = NULL")
        move(phone, laptop, asking)

        row = laptop.connection.execute("SELECT state, content, message_id FROM message")
        assert row.fetchall() == [(1, None, _id(PEERS[0], 1))]


def test_an_offer_is_for_the_device_that_took_it_up() -> None:
    with phone_and_laptop() as (phone, _, asking):
        assert phone.answers(asking) is not None

        assert phone.answers(asking, device=3) is None
        assert phone.answers(HistoryRequest(token=b"another")) is None
        asking.is_complete = True
        phone.answers(asking, device=3)
        assert offers.count_open(phone.connection) == 1


def test_a_part_that_does_not_follow_is_dropped() -> None:
    with phone_and_laptop() as (phone, laptop, asking):
        phone.receives(PEERS[0], 1, words("1", PEERS[0], 1), sender=PEERS[0])
        part = phone.answers(asking)
        assert part is not None
        for forged in (History(), History(token=b"another", after=part.after)):
            assert laptop.takes(forged) is None
        later = History()
        later.CopyFrom(part)
        later.after.seq = 7

        assert laptop.takes(later) is None
        assert not laptop.kept()
        assert laptop.takes(part) is not None
        assert laptop.takes(part) is None
