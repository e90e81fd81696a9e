"""Sends that wait, while a session that they share with others goes on, can be read in the end."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.whimbrel_client.conftest import People
from tests.whimbrel_client.fake_gateway import FakeMesh, rejection
from tests.whimbrel_client.test_reconnecting import until
from tests.whimbrel_client.test_talking import received
from whimbrel.content.v1.content_pb2 import Content, Text
from whimbrel.message.v1 import send_pb2
from whimbrel_client import Client
from whimbrel_client.crypto import Bundle, PublicPrekey, curve
from whimbrel_client.device_keys import OwnKeys, new_keys
from whimbrel_client.held import Held
from whimbrel_client.kept import Keeping, add_outgoing, queued_of
from whimbrel_client.opening import Delivered, Opening
from whimbrel_client.own_keys import own_keys_or_new
from whimbrel_client.schema import MIGRATIONS
from whimbrel_client.sealing import Sealing
from whimbrel_client.sessions import DeviceId, Sessions
from whimbrel_client.sqlcipher import connect_with
from whimbrel_client.sync import Sending

OWN, BOB, CAROL = b"o" * 16, b"b" * 16, b"c" * 16
ACCEPTED = "UPDATE outgoing SET state = 1 WHERE id = ?"
TEXTS = "SELECT content FROM message WHERE state = 0 AND sender_device <> ?"
UNREAD = "SELECT COUNT(*) FROM message WHERE state = 1"


class Device:
    """An own device: what it seals, and what it reads."""

    def __init__(self, stack: ExitStack, device_id: int, identity: curve.KeyPair) -> None:
        self.id = DeviceId(OWN, device_id)
        self.connection = connect_with(None, Path(":memory:"))
        stack.callback(self.connection.close)
        for script in MIGRATIONS:
            self.connection.executescript(script)
        self.keys = own_keys_or_new(self.connection, identity)
        self.sealing = Sealing(self.id)
        self.waiting: dict[bytes, deque[Sending]] = {BOB: deque(), CAROL: deque()}
        self.said: list[str] = []

    def meets(self, user_id: bytes, device_id: int, keys: OwnKeys) -> None:
        """Open a session with another device."""
        sessions = Sessions(self.connection)
        sessions.open(self.keys.device, DeviceId(user_id, device_id), bundle_of(keys))
        sessions.save()

    def says(self, to: bytes) -> None:
        """Say something; it is sealed, and waits."""
        text = f"{len(self.said)}"
        self.said.append(text)
        queued = queued_of(to, Content(text=Text(body=text)))
        local_id = add_outgoing(self.connection, queued)
        sending = Sending(local_id, to, queued.client_message_id)
        sending.send = self.sealing.seal(self.connection, [sending]).sends[local_id]
        self.waiting[to].append(sending)

    def sends(self, to: bytes) -> send_pb2.Send | None:
        """What waits longest for this person goes out."""
        if not self.waiting[to]:
            return None
        sending = self.waiting[to].popleft()
        self.sealing.renew(self.connection, [sending])
        (send,) = self.connection.execute(
            "SELECT send FROM outgoing WHERE id = ?", (sending.local_id,)
        ).fetchone()
        self.connection.execute(ACCEPTED, (sending.local_id,))
        return send_pb2.Send.FromString(send)

    def hears(self, sender: DeviceId, send: send_pb2.Send, seq: int) -> None:
        """The copy for this device arrives."""
        (body,) = (one for one in send.per_device.bodies if (one.user_id, one.device_id) == self.id)
        sessions = Sessions(self.connection)
        keeping = Keeping(self.connection, Opening(self.connection, sessions, self.id), Held())
        place = (send.user_id, seq, seq.to_bytes(16, "big"), *sender, 1000 * seq)
        keeping.keep(Delivered(*place, body.type, body.ciphertext))
        sessions.save()

    def read(self) -> list[str]:
        """What it has read of the other."""
        rows = self.connection.execute(TEXTS, (self.id.device_id,)).fetchall()
        return sorted(Content.FromString(row[0]).text.body for row in rows)


def bundle_of(keys: OwnKeys) -> Bundle:
    signed, kem = keys.signed, keys.last_resort
    return Bundle(
        identity=keys.device.identity.public,
        registration_id=keys.device.registration_id,
        signed=PublicPrekey(signed.id, signed.pair.public, signed.signature),
        kem=PublicPrekey(kem.id, kem.pair.public, kem.signature),
    )


class Pair:
    """A phone and a laptop, who write to bob and carol."""

    def __init__(self, stack: ExitStack) -> None:
        identity = curve.generate()
        self.phone, self.laptop = Device(stack, 1, identity), Device(stack, 2, identity)
        self.phone.meets(OWN, 2, self.laptop.keys)
        for person in (BOB, CAROL):
            keys = new_keys()
            self.phone.meets(person, 1, keys)
            self.laptop.meets(person, 1, keys)
        self._seq = 0
        self.deliver(self.phone, BOB)
        self.exchange()

    def deliver(self, sender: Device, to: bytes) -> None:
        """What waits longest is accepted, and the other device gets its copy."""
        send = sender.sends(to)
        if send is not None:
            self._seq += 1
            other = self.laptop if sender is self.phone else self.phone
            other.hears(sender.id, send, self._seq)

    def exchange(self) -> None:
        """Each says something to bob that arrives at once: the ratchet turns."""
        for device in (self.phone, self.laptop):
            device.says(BOB)
            while device.waiting[BOB]:
                self.deliver(device, BOB)


@contextmanager
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


steps = st.lists(
    st.sampled_from(["says to bob", "says to carol", "to bob", "to carol", "exchange"]),
    max_size=25,
)


@settings(max_examples=30)
@given(steps=steps)
@example(steps=["says to carol", *["exchange"] * 8, "to carol"])
def test_what_waits_for_one_person_while_the_talk_with_another_goes_on_can_be_read(
    steps: Sequence[str],
) -> None:
    with pair() as both:
        phone, laptop = both.phone, both.laptop
        for step in steps:
            to = CAROL if "carol" in step else BOB
            if step.startswith("says"):
                phone.says(to)
            elif step == "exchange":
                both.exchange()
            else:
                both.deliver(phone, to)
        for to in (BOB, CAROL):
            while phone.waiting[to]:
                both.deliver(phone, to)

        assert laptop.read() == sorted(phone.said)
        assert phone.read() == sorted(laptop.said)


async def test_a_send_that_was_refused_for_now_is_encrypted_anew_once_the_ratchet_has_turned(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    tried: list[send_pb2.Send] = []

    def refuse_to_bob(send: send_pb2.Send) -> send_pb2.Rejected | None:
        if send.user_id != mesh.handles["bob"].user_id:
            return None
        tried.append(send)
        return rejection(send, "OVERLOADED", 0.05)

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.accepted(await sender.send("bob", "first"))
        await received(receiver, 1)
        mesh.judge = refuse_to_bob
        late = await sender.send("bob", "late")
        await until(lambda: bool(tried))
        await receiver.accepted(await receiver.send("alice", "an answer turns the ratchet"))
        await received(sender, 1)
        mesh.judge = tried.append
        await sender.accepted(late)
        (_, message) = await received(receiver, 2)

    first, last = tried[0], tried[-1]
    assert message.text == "late"
    assert first.client_message_id == last.client_message_id
    assert first.per_device != last.per_device
