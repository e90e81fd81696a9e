"""The steps of the ML-KEM Braid's ciphertext sender, which answers a key piece by piece."""

from typing import assert_never

from whimbrel_client.crypto.errors import ForgedMessage, InvalidKey
from whimbrel_client.crypto.spqr import authenticator, split_kem
from whimbrel_client.crypto.spqr.chunks import Chunk, Decoder, Encoder, empty_decoder
from whimbrel_client.crypto.spqr.split_kem import HEADER_SIZE, VECTOR_SIZE
from whimbrel_client.crypto.spqr.states import (
    Braid,
    BraidMessage,
    ChunkKind,
    CiphertextSender,
    Ct1Acknowledged,
    Ct1Sampled,
    Ct2Sampled,
    EkReceivedCt1Sampled,
    EpochSecret,
    HeaderReceived,
    NoHeaderReceived,
    Sent,
)

_VECTOR_KINDS = (ChunkKind.VECTOR, ChunkKind.VECTOR_AND_ACK)
_ACK_KINDS = (ChunkKind.VECTOR_AND_ACK, ChunkKind.ACK)


def send(braid: Braid, state: CiphertextSender) -> Sent:
    """Say what goes with the next message."""
    match state:
        case NoHeaderReceived() | Ct1Acknowledged():
            return Sent(braid, BraidMessage(braid.epoch, ChunkKind.NONE))
        case HeaderReceived():
            return _encapsulate(braid, state)
        case Ct1Sampled(header, encapsulation, ct1, vector):
            ct1, chunk = ct1.next_chunk()
            message = BraidMessage(braid.epoch, ChunkKind.CT1, chunk)
            return Sent(braid.at(Ct1Sampled(header, encapsulation, ct1, vector)), message)
        case EkReceivedCt1Sampled(encapsulation, ct1, whole_vector):
            ct1, chunk = ct1.next_chunk()
            message = BraidMessage(braid.epoch, ChunkKind.CT1, chunk)
            return Sent(braid.at(EkReceivedCt1Sampled(encapsulation, ct1, whole_vector)), message)
        case Ct2Sampled(ct2):
            ct2, chunk = ct2.next_chunk()
            message = BraidMessage(braid.epoch, ChunkKind.CT2, chunk)
            return Sent(braid.at(Ct2Sampled(ct2)), message)
        case _:
            assert_never(state)


def receive(braid: Braid, state: CiphertextSender, kind: ChunkKind, chunk: Chunk | None) -> Braid:
    """Take what came in this epoch; what the state does not wait for changes nothing."""
    match state:
        case NoHeaderReceived() if kind is ChunkKind.HEADER and chunk is not None:
            return _with_header(braid, state, chunk)
        case Ct1Sampled() if kind in _VECTOR_KINDS and chunk is not None:
            return _with_vector_while_ct1(braid, state, kind, chunk)
        case EkReceivedCt1Sampled(encapsulation, ct1, vector) if kind in _ACK_KINDS:
            return _finish(braid, encapsulation, ct1.message, vector)
        case Ct1Acknowledged() if kind in _VECTOR_KINDS and chunk is not None:
            return _with_vector_after_ct1(braid, state, chunk)
        case _:
            return braid


def _with_header(braid: Braid, state: NoHeaderReceived, chunk: Chunk) -> Braid:
    decoder = state.header.with_chunk(chunk)
    message = decoder.message()
    if message is None:
        return braid.at(NoHeaderReceived(decoder))
    header, tag = message[:HEADER_SIZE], message[HEADER_SIZE:]
    braid.authenticator.prove_header(braid.epoch, header, tag)
    return braid.at(HeaderReceived(header))


def _encapsulate(braid: Braid, state: HeaderReceived) -> Sent:
    part = split_kem.encapsulate_1(state.header)
    secret = authenticator.epoch_secret(braid.epoch, part.shared)
    ct1, chunk = Encoder(part.ct1).next_chunk()
    sampled = Ct1Sampled(state.header, part.secret, ct1, empty_decoder(VECTOR_SIZE))
    after = Braid(braid.epoch, braid.authenticator.updated(braid.epoch, secret), sampled)
    message = BraidMessage(braid.epoch, ChunkKind.CT1, chunk)
    return Sent(after, message, EpochSecret(braid.epoch, secret))


def _with_vector_while_ct1(braid: Braid, state: Ct1Sampled, kind: ChunkKind, chunk: Chunk) -> Braid:
    decoder = state.vector.with_chunk(chunk)
    vector = _whole_vector(state.header, decoder)
    acknowledged = kind in _ACK_KINDS
    header, encapsulation, ct1 = state.header, state.encapsulation, state.ct1
    if vector is None and acknowledged:
        return braid.at(Ct1Acknowledged(header, encapsulation, ct1.message, decoder))
    if vector is None:
        return braid.at(Ct1Sampled(header, encapsulation, ct1, decoder))
    if acknowledged:
        return _finish(braid, encapsulation, ct1.message, vector)
    return braid.at(EkReceivedCt1Sampled(encapsulation, ct1, vector))


def _with_vector_after_ct1(braid: Braid, state: Ct1Acknowledged, chunk: Chunk) -> Braid:
    decoder = state.vector.with_chunk(chunk)
    vector = _whole_vector(state.header, decoder)
    if vector is None:
        return braid.at(Ct1Acknowledged(state.header, state.encapsulation, state.ct1, decoder))
    return _finish(braid, state.encapsulation, state.ct1, vector)


def _whole_vector(header: bytes, decoder: Decoder) -> bytes | None:
    vector = decoder.message()
    if vector is not None and not split_kem.fits(header, vector):
        raise ForgedMessage("a key vector is not the one that its header announced")
    return vector


def _finish(braid: Braid, encapsulation: bytes, ct1: bytes, vector: bytes) -> Braid:
    try:
        ct2 = split_kem.encapsulate_2(encapsulation, vector)
    except InvalidKey as error:
        raise ForgedMessage("a key vector is no key") from error
    tag = braid.authenticator.mac_of_ciphertext(braid.epoch, ct1 + ct2)
    return braid.at(Ct2Sampled(Encoder(ct2 + tag)))
