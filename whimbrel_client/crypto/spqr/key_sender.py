"""The steps of the ML-KEM Braid's key sender: header, vector, then two parts of a ciphertext."""

from typing import assert_never

from whimbrel_client.crypto.spqr import authenticator, split_kem
from whimbrel_client.crypto.spqr.authenticator import MAC_SIZE
from whimbrel_client.crypto.spqr.chunks import Chunk, Encoder, empty_decoder
from whimbrel_client.crypto.spqr.split_kem import CT1_SIZE, CT2_SIZE, HEADER_SIZE
from whimbrel_client.crypto.spqr.states import (
    Braid,
    BraidMessage,
    ChunkKind,
    Ct1Received,
    EkSentCt1Received,
    EpochSecret,
    HeaderSent,
    KeySender,
    KeysSampled,
    KeysUnsampled,
    NoHeaderReceived,
    Sent,
)


def send(braid: Braid, state: KeySender) -> Sent:
    """Say what goes with the next message."""
    match state:
        case KeysUnsampled():
            return _send_header(braid, _sampled(braid))
        case KeysSampled():
            return _send_header(braid, state)
        case HeaderSent(key_seed, vector, ct1):
            vector, chunk = vector.next_chunk()
            message = BraidMessage(braid.epoch, ChunkKind.VECTOR, chunk)
            return Sent(braid.at(HeaderSent(key_seed, vector, ct1)), message)
        case Ct1Received(key_seed, vector, whole_ct1):
            vector, chunk = vector.next_chunk()
            message = BraidMessage(braid.epoch, ChunkKind.VECTOR_AND_ACK, chunk)
            return Sent(braid.at(Ct1Received(key_seed, vector, whole_ct1)), message)
        case EkSentCt1Received():
            return Sent(braid, BraidMessage(braid.epoch, ChunkKind.ACK))
        case _:
            assert_never(state)


def receive(
    braid: Braid, state: KeySender, kind: ChunkKind, chunk: Chunk
) -> tuple[Braid, EpochSecret | None]:
    """Take a chunk of this epoch; one that the state does not wait for changes nothing."""
    match state:
        case KeysSampled(key_seed) if kind is ChunkKind.CT1:
            # The first chunk of ct1 tells that the header has arrived.
            vector = Encoder(split_kem.from_seed(key_seed).vector)
            ct1 = empty_decoder(CT1_SIZE)
            return _with_ct1(braid, HeaderSent(key_seed, vector, ct1), chunk), None
        case HeaderSent() if kind is ChunkKind.CT1:
            return _with_ct1(braid, state, chunk), None
        case Ct1Received(key_seed, _, ct1) if kind is ChunkKind.CT2:
            waiting = EkSentCt1Received(key_seed, ct1, empty_decoder(CT2_SIZE + MAC_SIZE))
            return _with_ct2(braid, waiting, chunk)
        case EkSentCt1Received() if kind is ChunkKind.CT2:
            return _with_ct2(braid, state, chunk)
        case _:
            return braid, None


def _sampled(braid: Braid) -> KeysSampled:
    key = split_kem.generate()
    tag = braid.authenticator.mac_of_header(braid.epoch, key.header)
    return KeysSampled(key.seed, Encoder(key.header + tag))


def _send_header(braid: Braid, state: KeysSampled) -> Sent:
    header, chunk = state.header.next_chunk()
    message = BraidMessage(braid.epoch, ChunkKind.HEADER, chunk)
    return Sent(braid.at(KeysSampled(state.key_seed, header)), message)


def _with_ct1(braid: Braid, state: HeaderSent, chunk: Chunk) -> Braid:
    decoder = state.ct1.with_chunk(chunk)
    ct1 = decoder.message()
    if ct1 is None:
        return braid.at(HeaderSent(state.key_seed, state.vector, decoder))
    return braid.at(Ct1Received(state.key_seed, state.vector, ct1))


def _with_ct2(
    braid: Braid, state: EkSentCt1Received, chunk: Chunk
) -> tuple[Braid, EpochSecret | None]:
    decoder = state.ct2.with_chunk(chunk)
    message = decoder.message()
    if message is None:
        return braid.at(EkSentCt1Received(state.key_seed, state.ct1, decoder)), None
    ct2, tag = message[:CT2_SIZE], message[CT2_SIZE:]
    shared = split_kem.decapsulate(state.key_seed, state.ct1, ct2)
    secret = authenticator.epoch_secret(braid.epoch, shared)
    proved = braid.authenticator.updated(braid.epoch, secret)
    proved.prove_ciphertext(braid.epoch, state.ct1 + ct2, tag)
    header = empty_decoder(HEADER_SIZE + MAC_SIZE)
    after = Braid(braid.epoch + 1, proved, NoHeaderReceived(header))
    return after, EpochSecret(braid.epoch, secret)
