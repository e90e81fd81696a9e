"""The post-quantum ratchet: its erasure code, its split KEM, its frames, its state machine."""

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.whimbrel_client.crypto.people import Person
from tests.whimbrel_client.crypto.test_sessions import acquainted
from whimbrel_client.crypto import (
    ForgedMessage,
    MalformedMessage,
    Undecryptable,
    UnsupportedVersion,
)
from whimbrel_client.crypto.spqr import braid, chains, frame, split_kem, states
from whimbrel_client.crypto.spqr import ratchet as spqr
from whimbrel_client.crypto.spqr import stored as stored_spqr
from whimbrel_client.crypto.spqr.chunks import CHUNK_SIZE, Chunk, Encoder, empty_decoder
from whimbrel_client.crypto.spqr.frame import Frame
from whimbrel_client.crypto.spqr.states import BraidMessage, ChunkKind

ALL_STATES = {
    states.KeysUnsampled,
    states.KeysSampled,
    states.HeaderSent,
    states.Ct1Received,
    states.EkSentCt1Received,
    states.NoHeaderReceived,
    states.HeaderReceived,
    states.Ct1Sampled,
    states.EkReceivedCt1Sampled,
    states.Ct1Acknowledged,
    states.Ct2Sampled,
}


@settings(max_examples=25)
@given(count=st.integers(1, 36), data=st.data())
def test_any_chunks_that_are_enough_give_the_message_back(count: int, data: st.DataObject) -> None:
    message = data.draw(st.binary(min_size=count * CHUNK_SIZE, max_size=count * CHUNK_SIZE))
    encoder, sent = Encoder(message), []
    for _ in range(3 * count):
        encoder, chunk = encoder.next_chunk()
        sent.append(chunk)
    decoder = empty_decoder(len(message))

    for chunk in data.draw(st.permutations(sent)):
        assert (decoder.message() is None) == (len(decoder.chunks) < count)
        decoder = decoder.with_chunk(chunk)

    assert decoder.message() == message


def test_the_first_chunks_are_the_message_and_a_chunk_is_taken_once() -> None:
    message = bytes(range(96))
    _, first = Encoder(message).next_chunk()

    decoder = empty_decoder(96).with_chunk(first).with_chunk(first).with_chunk(first)

    assert first == Chunk(0, message[:32])
    assert decoder.message() is None


def test_after_65536_chunks_the_first_comes_again() -> None:
    encoder, last = Encoder(bytes(range(32)), 0xFFFF).next_chunk()

    assert last.index == 0xFFFF
    assert encoder.next_chunk()[1].index == 0


def test_a_split_encapsulation_is_one_of_ml_kem_768() -> None:
    key = split_kem.generate()

    part = split_kem.encapsulate_1(key.header)
    ct2 = split_kem.encapsulate_2(part.secret, key.vector)

    native = MLKEM768PrivateKey.from_seed_bytes(key.seed)
    assert native.decapsulate(part.ct1 + ct2) == part.shared
    assert split_kem.fits(key.header, key.vector)
    assert not split_kem.fits(key.header, key.vector[:-1] + b"\x00\x00"[:1])


@given(
    epoch=st.integers(1, (1 << 64) - 1),
    index=st.integers(0, (1 << 32) - 1),
    kind=st.sampled_from(ChunkKind),
    chunk=st.builds(
        Chunk, st.integers(0, 0xFFFF), st.binary(min_size=CHUNK_SIZE, max_size=CHUNK_SIZE)
    ),
)
def test_a_frame_is_read_as_it_was_written(
    epoch: int, index: int, kind: ChunkKind, chunk: Chunk
) -> None:
    carried = None if kind in (ChunkKind.NONE, ChunkKind.ACK) else chunk
    written = Frame(index, BraidMessage(epoch, kind, carried))

    assert frame.decode(frame.encode(written)) == written


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        frame.decode(body)
    except (MalformedMessage, UnsupportedVersion):
        return


@pytest.mark.parametrize("lost", [0.0, 0.3], ids=["smooth", "a third lost"])
def test_epochs_follow_each_other_through_every_state_across_restarts(lost: float) -> None:
    chance = random.Random(7)
    secret = bytes(32)
    sides = [spqr.start(secret, initiator=True), spqr.start(secret, initiator=False)]
    seen = set()

    for _ in range(1200):
        sender = chance.randrange(2)
        sides[sender], message, key = spqr.send(sides[sender])
        if chance.random() >= lost:
            sides[1 - sender], read = spqr.receive(sides[1 - sender], frame.decode(message))
            assert read == key
        for i, side in enumerate(sides):
            seen.add(type(side.braid.state))
            sides[i] = stored_spqr.load(stored_spqr.dump(side))
            assert sides[i] == side

    assert seen == ALL_STATES
    assert sides[0].braid.epoch > 5
    assert len(sides[0].chains.epochs) == chains.MOST_EPOCHS


def test_each_epoch_gives_both_sides_the_same_new_secret() -> None:
    secret = bytes(32)
    one, two = braid.start(secret, initiator=True), braid.start(secret, initiator=False)
    agreed: dict[int, list[bytes]] = {}

    while one.epoch < 4:
        for _ in range(2):
            sent = braid.send(one)
            two, theirs = braid.receive(two, sent.message)
            for each in (sent.secret, theirs):
                if each is not None:
                    agreed.setdefault(each.epoch, []).append(each.secret)
            one, two = two, sent.after

    complete = [secrets for secrets in agreed.values() if len(secrets) == 2]
    assert len(complete) >= 3
    assert all(first == second for first, second in complete)
    assert len({first for first, _ in complete}) == len(complete)


def test_a_forged_key_header_is_refused() -> None:
    one, two = spqr.start(bytes(32), initiator=True), spqr.start(b"\x01" * 32, initiator=False)

    for _ in range(2):
        one, message, _ = spqr.send(one)
        two, _ = spqr.receive(two, frame.decode(message))
    _, message, _ = spqr.send(one)

    with pytest.raises(ForgedMessage):
        spqr.receive(two, frame.decode(message))


def test_a_message_from_an_epoch_that_nobody_agreed_on_is_refused() -> None:
    state = spqr.start(bytes(32), initiator=False)
    ahead = Frame(1, BraidMessage(2, ChunkKind.NONE))

    with pytest.raises(MalformedMessage):
        spqr.receive(state, ahead)


def test_the_keys_of_old_epochs_are_given_up() -> None:
    alice, bob = acquainted()
    late = alice.encrypt("bob", b"late")

    talk_until_epoch(alice, bob, 8)

    session = bob.record("alice").current
    assert session is not None
    assert session.spqr is not None
    numbers = [epoch.number for epoch in session.spqr.chains.epochs]
    assert len(numbers) == chains.MOST_EPOCHS
    assert numbers[0] > 0
    assert all(epoch.sending_key is None for epoch in session.spqr.chains.epochs[:-2])
    with pytest.raises(Undecryptable):
        bob.decrypt("alice", late)


def talk_until_epoch(alice: Person, bob: Person, epoch: int) -> None:
    while True:
        bob.decrypt("alice", alice.encrypt("bob", b"tick"))
        alice.decrypt("bob", bob.encrypt("alice", b"tock"))
        session = alice.record("bob").current
        assert session is not None
        assert session.spqr is not None
        if session.spqr.braid.epoch >= epoch:
            return


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [
        (ChunkKind.HEADER, "MAC of a key header"),
        (ChunkKind.VECTOR, "a key vector"),
        (ChunkKind.CT1, "MAC of a KEM ciphertext"),
        (ChunkKind.CT2, "MAC of a KEM ciphertext"),
    ],
)
def test_the_braid_refuses_an_exchange_of_which_one_chunk_was_altered(
    kind: ChunkKind, refusal: str
) -> None:
    with pytest.raises(ForgedMessage, match=refusal):
        braid_with_one_altered_chunk(kind)


def braid_with_one_altered_chunk(kind: ChunkKind) -> None:
    one, two = braid.start(bytes(32), initiator=True), braid.start(bytes(32), initiator=False)
    altered = False
    while min(one.epoch, two.epoch) < 2:
        sent = braid.send(one)
        message = sent.message
        if not altered and message.kind is kind and message.chunk is not None:
            message = with_altered_chunk(message, message.chunk)
            altered = True
        two, _ = braid.receive(two, message)
        one, two = two, sent.after


def with_altered_chunk(message: BraidMessage, chunk: Chunk) -> BraidMessage:
    symbols = bytes((chunk.symbols[0] ^ 1,)) + chunk.symbols[1:]
    return BraidMessage(message.epoch, message.kind, Chunk(chunk.index, symbols))
