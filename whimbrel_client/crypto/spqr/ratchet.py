"""SPQR as the session sees it: a message and a key to send, a key for each message received."""

from dataclasses import dataclass

from whimbrel_client.crypto.spqr import braid, chains, frame
from whimbrel_client.crypto.spqr.chains import EpochChains
from whimbrel_client.crypto.spqr.frame import Frame
from whimbrel_client.crypto.spqr.states import Braid


@dataclass(frozen=True, slots=True, repr=False)
class Spqr:
    """The state of one side; a value."""

    braid: Braid
    chains: EpochChains


def start(secret: bytes, *, initiator: bool) -> Spqr:
    """Begin with the third key of the agreement."""
    return Spqr(braid.start(secret, initiator=initiator), chains.start(secret, initiator=initiator))


def send(state: Spqr) -> tuple[Spqr, bytes, bytes]:
    """Return the state after, what goes with the message, and the message's key."""
    sent = braid.send(state.braid)
    known = chains.with_epoch(state.chains, sent.secret)
    known, index, key = chains.next_to_send(known, _key_epoch(sent.message.epoch))
    return Spqr(sent.after, known), frame.encode(Frame(index, sent.message)), key


def receive(state: Spqr, message: Frame) -> tuple[Spqr, bytes]:
    """Return the state after and the message's key; raises Undecryptable."""
    after, secret = braid.receive(state.braid, message.braid)
    known = chains.with_epoch(state.chains, secret)
    known, key = chains.to_receive(known, _key_epoch(message.braid.epoch), message.index)
    return Spqr(after, known), key


def _key_epoch(epoch: int) -> int:
    """The epoch being agreed on is not known to both sides yet, the one before it is."""
    return epoch - 1
