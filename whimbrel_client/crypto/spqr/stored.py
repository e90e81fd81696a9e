"""How the state of SPQR is kept inside a session's."""

from typing import assert_never

from whimbrel.crypto.v1 import state_pb2
from whimbrel_client.crypto import versioned
from whimbrel_client.crypto.errors import MalformedState
from whimbrel_client.crypto.spqr.authenticator import MAC_SIZE, Authenticator
from whimbrel_client.crypto.spqr.chains import Epoch, EpochChains
from whimbrel_client.crypto.spqr.chunks import Decoder, Encoder
from whimbrel_client.crypto.spqr.ratchet import Spqr
from whimbrel_client.crypto.spqr.split_kem import CT1_SIZE, CT2_SIZE, HEADER_SIZE, VECTOR_SIZE
from whimbrel_client.crypto.spqr.states import (
    Braid,
    CiphertextSender,
    Ct1Acknowledged,
    Ct1Received,
    Ct1Sampled,
    Ct2Sampled,
    EkReceivedCt1Sampled,
    EkSentCt1Received,
    HeaderReceived,
    HeaderSent,
    KeySender,
    KeysSampled,
    KeysUnsampled,
    NoHeaderReceived,
)

_State = state_pb2.BraidState


def dump(spqr: Spqr) -> state_pb2.SpqrState:
    """Return the stored form."""
    return state_pb2.SpqrState(
        root_key=spqr.chains.root,
        initiator=spqr.chains.initiator,
        epochs=[_epoch_state(epoch) for epoch in spqr.chains.epochs],
        braid=_braid_state(spqr.braid),
    )


def load(state: state_pb2.SpqrState) -> Spqr:
    """Raises MalformedState."""
    if not state.epochs:
        raise MalformedState("a post-quantum ratchet without an epoch")
    epochs = tuple(_epoch(epoch) for epoch in state.epochs)
    return Spqr(_braid(state.braid), EpochChains(state.root_key, state.initiator, epochs))


def _epoch_state(epoch: Epoch) -> state_pb2.SpqrEpochState:
    return state_pb2.SpqrEpochState(
        epoch=epoch.number,
        sending_key=epoch.sending_key or b"",
        sending_index=epoch.sending_index,
        receiving_key=epoch.receiving_key,
        receiving_index=epoch.receiving_index,
        skipped=versioned.skipped_states(epoch.skipped),
    )


def _epoch(state: state_pb2.SpqrEpochState) -> Epoch:
    return Epoch(
        state.epoch,
        state.sending_key or None,
        state.sending_index,
        state.receiving_key,
        state.receiving_index,
        {each.index: each.key for each in state.skipped},
    )


def _braid_state(braid: Braid) -> state_pb2.BraidState:
    stored = _State(
        epoch=braid.epoch,
        authenticator_root=braid.authenticator.root,
        authenticator_mac=braid.authenticator.mac_key,
    )
    stored.MergeFrom(_arm(braid.state))
    return stored


def _braid(stored: state_pb2.BraidState) -> Braid:
    authenticator = Authenticator(stored.authenticator_root, stored.authenticator_mac)
    return Braid(stored.epoch, authenticator, _state_of(stored))


def _arm(state: KeySender | CiphertextSender) -> state_pb2.BraidState:
    """Return a BraidState that has only the arm of this state."""
    match state:
        case KeysUnsampled():
            return _State(keys_unsampled=_State.Empty())
        case KeysSampled(seed, header):
            return _State(keys_sampled=_State.KeysSampled(key_seed=seed, header=_sending(header)))
        case HeaderSent(seed, vector, ct1):
            return _State(
                header_sent=_State.HeaderSent(
                    key_seed=seed, vector=_sending(vector), ct1=_receiving(ct1)
                )
            )
        case Ct1Received(seed, vector, whole_ct1):
            return _State(
                ct1_received=_State.Ct1Received(
                    key_seed=seed, vector=_sending(vector), ct1=whole_ct1
                )
            )
        case EkSentCt1Received(seed, whole_ct1, ct2):
            return _State(
                ek_sent_ct1_received=_State.EkSentCt1Received(
                    key_seed=seed, ct1=whole_ct1, ct2=_receiving(ct2)
                )
            )
        case _:
            return _ciphertext_sender_arm(state)


def _ciphertext_sender_arm(state: CiphertextSender) -> state_pb2.BraidState:
    match state:
        case NoHeaderReceived(header):
            return _State(no_header_received=_State.NoHeaderReceived(header=_receiving(header)))
        case HeaderReceived(whole_header):
            return _State(header_received=_State.HeaderReceived(header=whole_header))
        case Ct1Sampled(whole_header, encapsulation, ct1, vector):
            return _State(
                ct1_sampled=_State.Ct1Sampled(
                    header=whole_header,
                    encapsulation=encapsulation,
                    ct1=_sending(ct1),
                    vector=_receiving(vector),
                )
            )
        case EkReceivedCt1Sampled(encapsulation, ct1, whole_vector):
            return _State(
                ek_received_ct1_sampled=_State.EkReceivedCt1Sampled(
                    encapsulation=encapsulation, ct1=_sending(ct1), vector=whole_vector
                )
            )
        case Ct1Acknowledged(whole_header, encapsulation, whole_ct1, vector):
            return _State(
                ct1_acknowledged=_State.Ct1Acknowledged(
                    header=whole_header,
                    encapsulation=encapsulation,
                    ct1=whole_ct1,
                    vector=_receiving(vector),
                )
            )
        case Ct2Sampled(ct2):
            return _State(ct2_sampled=_State.Ct2Sampled(ct2=_sending(ct2)))
        case _:
            assert_never(state)


def _state_of(stored: state_pb2.BraidState) -> KeySender | CiphertextSender:
    match stored.WhichOneof("state"):
        case "keys_unsampled":
            return KeysUnsampled()
        case "keys_sampled":
            sampled = stored.keys_sampled
            return KeysSampled(sampled.key_seed, _encoder(sampled.header))
        case "header_sent":
            sent = stored.header_sent
            return HeaderSent(sent.key_seed, _encoder(sent.vector), _decoder(CT1_SIZE, sent.ct1))
        case "ct1_received":
            received = stored.ct1_received
            return Ct1Received(received.key_seed, _encoder(received.vector), received.ct1)
        case "ek_sent_ct1_received":
            waiting = stored.ek_sent_ct1_received
            ct2 = _decoder(CT2_SIZE + MAC_SIZE, waiting.ct2)
            return EkSentCt1Received(waiting.key_seed, waiting.ct1, ct2)
        case _:
            return _ciphertext_sender_of(stored)


def _ciphertext_sender_of(stored: state_pb2.BraidState) -> CiphertextSender:
    match stored.WhichOneof("state"):
        case "no_header_received":
            header = stored.no_header_received.header
            return NoHeaderReceived(_decoder(HEADER_SIZE + MAC_SIZE, header))
        case "header_received":
            return HeaderReceived(stored.header_received.header)
        case "ct1_sampled":
            one = stored.ct1_sampled
            vector = _decoder(VECTOR_SIZE, one.vector)
            return Ct1Sampled(one.header, one.encapsulation, _encoder(one.ct1), vector)
        case "ek_received_ct1_sampled":
            two = stored.ek_received_ct1_sampled
            return EkReceivedCt1Sampled(two.encapsulation, _encoder(two.ct1), two.vector)
        case "ct1_acknowledged":
            three = stored.ct1_acknowledged
            vector = _decoder(VECTOR_SIZE, three.vector)
            return Ct1Acknowledged(three.header, three.encapsulation, three.ct1, vector)
        case "ct2_sampled":
            return Ct2Sampled(_encoder(stored.ct2_sampled.ct2))
        case _:
            raise MalformedState("the braid is in no state")


def _sending(encoder: Encoder) -> state_pb2.BraidState.Encoder:
    return _State.Encoder(message=encoder.message, next_chunk=encoder.next_index)


def _encoder(stored: state_pb2.BraidState.Encoder) -> Encoder:
    return Encoder(stored.message, stored.next_chunk)


def _receiving(decoder: Decoder) -> state_pb2.BraidState.Decoder:
    chunks = decoder.chunks.items()
    return _State.Decoder(chunks=[_State.Chunk(index=i, symbols=s) for i, s in chunks])


def _decoder(size: int, stored: state_pb2.BraidState.Decoder) -> Decoder:
    return Decoder(size, {chunk.index: chunk.symbols for chunk in stored.chunks})
