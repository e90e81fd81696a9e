"""Any interleaving of send, lose, reorder, duplicate, forge, crash and reload decrypts exactly what
was sent, once."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.whimbrel_client.crypto.people import Person
from whimbrel_client.crypto import Ciphertext, MessageKind, Undecryptable, open_prekey, open_ratchet

MOST_OPENINGS = 8  # fewer than the sessions that are remembered


@dataclass
class Letter:
    sender: Person
    receiver: Person
    plaintext: bytes
    ciphertext: Ciphertext

    @property
    def ratchet_key(self) -> bytes:
        body = self.ciphertext.body
        if self.ciphertext.kind is MessageKind.PREKEY:
            return open_prekey(body).inner.ratchet_key
        return open_ratchet(body).ratchet_key


class Conversation(RuleBasedStateMachine):
    """Two devices; each keeps nothing but what it has stored."""

    with_spqr = True

    def __init__(self) -> None:
        super().__init__()
        self.people = [Person(name, with_spqr=self.with_spqr) for name in ("alice", "bob")]
        self.on_the_way: list[Letter] = []
        self.read: list[Letter] = []
        self.seen: set[tuple[str, bytes]] = set()
        self.count = 0
        self.openings = 0
        self._open(0)

    @rule(who=st.integers(0, 1))
    def send(self, who: int) -> None:
        letter = self._write(who)
        if letter is not None:
            self.on_the_way.append(letter)

    @rule(who=st.integers(0, 1))
    def crash_before_a_message_is_kept(self, who: int) -> None:
        memory = self.people[who].memory()

        self._write(who)

        self.people[who].restart_with(memory)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def deliver_any(self, data: st.DataObject) -> None:
        letter = data.draw(st.sampled_from(self.on_the_way))
        self.on_the_way.remove(letter)
        self._deliver(letter)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def crash_before_what_was_read_is_kept(self, data: st.DataObject) -> None:
        letter = data.draw(st.sampled_from(self.on_the_way))
        memory = letter.receiver.memory()
        if self._is_readable(letter):
            assert (
                letter.receiver.decrypt(letter.sender.name, letter.ciphertext) == letter.plaintext
            )

        letter.receiver.restart_with(memory)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def lose_any(self, data: st.DataObject) -> None:
        self.on_the_way.remove(data.draw(st.sampled_from(self.on_the_way)))

    @precondition(lambda self: self.read)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        letter = data.draw(st.sampled_from(self.read))

        self._refused(letter.receiver, letter.sender, letter.ciphertext)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def forge_any(self, data: st.DataObject) -> None:
        letter = data.draw(st.sampled_from(self.on_the_way))
        if letter.ciphertext.kind is MessageKind.PREKEY:
            return  # not all of its frame is covered by a MAC; test_bad_messages looks at it
        body = bytearray(letter.ciphertext.body)
        bit = data.draw(st.integers(0, 8 * len(body) - 1))
        body[bit // 8] ^= 1 << bit % 8

        self._refused(
            letter.receiver, letter.sender, Ciphertext(letter.ciphertext.kind, bytes(body))
        )

    @precondition(lambda self: self.openings < MOST_OPENINGS)
    @rule(who=st.integers(0, 1))
    def open_a_new_session(self, who: int) -> None:
        self._open(who)

    @rule(rounds=st.integers(1, 30))
    def talk_smoothly(self, rounds: int) -> None:
        for _ in range(rounds):
            for who in (0, 1):
                letter = self._write(who)
                if letter is not None:
                    self._deliver(letter)

    def _open(self, who: int) -> None:
        me, peer = self.people[who], self.people[1 - who]
        me.open(peer.name, peer.bundle(one_time=bool(self.openings % 2)))
        self.openings += 1

    def _write(self, who: int) -> Letter | None:
        me, peer = self.people[who], self.people[1 - who]
        if peer.name not in me.records:
            return None
        self.count += 1
        plaintext = b"%d" % self.count
        return Letter(me, peer, plaintext, me.encrypt(peer.name, plaintext))

    def _deliver(self, letter: Letter) -> None:
        if not self._is_readable(letter):
            self._refused(letter.receiver, letter.sender, letter.ciphertext)
            return
        read = letter.receiver.decrypt(letter.sender.name, letter.ciphertext)
        assert read == letter.plaintext
        self.seen.add((letter.receiver.name, letter.ratchet_key))
        self.read.append(letter)

    def _is_readable(self, letter: Letter) -> bool:
        """A message is readable until five later chains have come after its own."""
        if (letter.receiver.name, letter.ratchet_key) not in self.seen:
            return True
        record = letter.receiver.record(letter.sender.name)
        sessions = (record.current, *record.previous)
        known = {c.ratchet for s in sessions if s is not None for c in s.ratchet.receiving}
        return letter.ratchet_key in known

    def _refused(self, receiver: Person, sender: Person, ciphertext: Ciphertext) -> None:
        before = receiver.memory()
        with pytest.raises(Undecryptable):
            receiver.decrypt(sender.name, ciphertext)
        assert receiver.memory() == before


class ConversationWithoutSpqr(Conversation):
    with_spqr = False


@pytest.mark.parametrize(
    "conversation", [Conversation, ConversationWithoutSpqr], ids=["spqr", "no spqr"]
)
def test_any_interleaving_decrypts_exactly_what_was_sent_once(
    conversation: type[Conversation],
) -> None:
    run_state_machine_as_test(
        conversation,
        settings=settings(
            max_examples=20,
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
        ),
    )
