"""The ML-KEM Braid (Signal's specification): both sides' state machine as two pure functions."""

from whimbrel_client.crypto.errors import MalformedMessage
from whimbrel_client.crypto.spqr import authenticator, ciphertext_sender, key_sender
from whimbrel_client.crypto.spqr.authenticator import MAC_SIZE
from whimbrel_client.crypto.spqr.chunks import empty_decoder
from whimbrel_client.crypto.spqr.split_kem import HEADER_SIZE
from whimbrel_client.crypto.spqr.states import (
    Braid,
    BraidMessage,
    Ct1Received,
    Ct2Sampled,
    EkSentCt1Received,
    EpochSecret,
    HeaderSent,
    KeysSampled,
    KeysUnsampled,
    NoHeaderReceived,
    Sent,
)

FIRST_EPOCH = 1
_KEY_SENDER = (KeysUnsampled, KeysSampled, HeaderSent, Ct1Received, EkSentCt1Received)


def start(secret: bytes, *, initiator: bool) -> Braid:
    """The initiator of the session is the first key sender."""
    waiting = NoHeaderReceived(empty_decoder(HEADER_SIZE + MAC_SIZE))
    state = KeysUnsampled() if initiator else waiting
    return Braid(FIRST_EPOCH, authenticator.start(FIRST_EPOCH, secret), state)


def send(braid: Braid) -> Sent:
    """Say what goes with the next message."""
    if isinstance(braid.state, _KEY_SENDER):
        return key_sender.send(braid, braid.state)
    return ciphertext_sender.send(braid, braid.state)


def receive(braid: Braid, message: BraidMessage) -> tuple[Braid, EpochSecret | None]:
    """Take what came with a message; raises Undecryptable, and then nothing has changed."""
    if message.epoch < braid.epoch:
        return braid, None
    if message.epoch > braid.epoch:
        return _next_epoch(braid, message), None
    if not isinstance(braid.state, _KEY_SENDER):
        after = ciphertext_sender.receive(braid, braid.state, message.kind, message.chunk)
        return after, None
    if message.chunk is None:
        return braid, None
    return key_sender.receive(braid, braid.state, message.kind, message.chunk)


def _next_epoch(braid: Braid, message: BraidMessage) -> Braid:
    """That the other side speaks of the next epoch tells that it has all of ct2."""
    if not isinstance(braid.state, Ct2Sampled) or message.epoch != braid.epoch + 1:
        raise MalformedMessage("an epoch was left out")
    return Braid(message.epoch, braid.authenticator, KeysUnsampled())
