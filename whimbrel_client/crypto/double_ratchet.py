"""The Double Ratchet (Signal's specification, section 3), without the messages around it.

Every state here is a value: a step returns the state after it, and whoever does not keep that one
has not taken the step. Old receiving chains are kept, so the previous counter is not needed. A new
ratchet key is made when it is first written with (the specification's section 8.5).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from whimbrel_client.crypto import curve
from whimbrel_client.crypto.curve import KeyPair
from whimbrel_client.crypto.derivation import chain_step, derive
from whimbrel_client.crypto.errors import MessageTooFarAhead, RepeatedMessage

MOST_SKIPPED = 2_000
MOST_RECEIVING_CHAINS = 5
FARTHEST_JUMP = 25_000


@dataclass(frozen=True, slots=True, repr=False)
class SendingChain:
    """What we write with until the other side's next ratchet key arrives."""

    ratchet: KeyPair
    key: bytes
    index: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class ReceivingChain:
    """What we read one of the other side's chains with."""

    ratchet: bytes
    key: bytes
    index: int
    skipped: Mapping[int, bytes]


@dataclass(frozen=True, slots=True, repr=False)
class DoubleRatchet:
    """The whole ratchet; the receiving chains are in the order of their birth.

    While `unanswered` holds a key of theirs, our next chain is still to be made for it.
    """

    root: bytes
    sending: SendingChain
    receiving: tuple[ReceivingChain, ...]
    previous_counter: int = 0
    unanswered: bytes | None = None


def start_as_initiator(root: bytes, chain: bytes, their_key: bytes) -> DoubleRatchet:
    """Their signed prekey is their first ratchet key, and the agreed chain their first chain."""
    ours = curve.generate()
    receiving = ReceivingChain(their_key, chain, 0, {})
    next_root, sending = _root_step(root, ours, their_key)
    return DoubleRatchet(next_root, SendingChain(ours, sending), (receiving,))


def start_as_responder(root: bytes, chain: bytes, signed_prekey: KeyPair) -> DoubleRatchet:
    """Our signed prekey is our first ratchet key; we read nothing before theirs comes."""
    return DoubleRatchet(root, SendingChain(signed_prekey, chain), ())


def writes_on(ratchet: DoubleRatchet, our_key: bytes) -> bool:
    """Whether our next message would be on the chain of this ratchet key of ours."""
    return ratchet.unanswered is None and ratchet.sending.ratchet.public == our_key


def knows(ratchet: DoubleRatchet, their_key: bytes) -> bool:
    """Whether a chain of theirs is remembered."""
    return any(chain.ratchet == their_key for chain in ratchet.receiving)


def next_to_send(ratchet: DoubleRatchet) -> tuple[DoubleRatchet, bytes]:
    """Return the state after, and the seed of this message's keys.

    The message has the state's ratchet key and previous counter; it is the last one counted.
    """
    if ratchet.unanswered is not None:
        ratchet = _answer(ratchet, ratchet.unanswered)
    chain = ratchet.sending
    seed, following = chain_step(chain.key)
    after = SendingChain(chain.ratchet, following, chain.index + 1)
    return (
        DoubleRatchet(ratchet.root, after, ratchet.receiving, ratchet.previous_counter),
        seed,
    )


def to_receive(ratchet: DoubleRatchet, their_key: bytes, index: int) -> tuple[DoubleRatchet, bytes]:
    """Return the state after, and the seed of the keys of the message at this place."""
    for place, chain in enumerate(ratchet.receiving):
        if chain.ratchet == their_key:
            return _receive_on(ratchet, place, index)
    turned = _turn(ratchet, their_key)
    return _receive_on(turned, len(turned.receiving) - 1, index)


def _receive_on(ratchet: DoubleRatchet, place: int, index: int) -> tuple[DoubleRatchet, bytes]:
    chains = ratchet.receiving
    after, seed = _take(chains[place], index)
    return (
        DoubleRatchet(
            ratchet.root,
            ratchet.sending,
            (*chains[:place], after, *chains[place + 1 :]),
            ratchet.previous_counter,
            ratchet.unanswered,
        ),
        seed,
    )


def _turn(ratchet: DoubleRatchet, their_key: bytes) -> DoubleRatchet:
    """Take the other side's new key, to read with; nothing is written with the old chain again."""
    old = ratchet.sending
    root, receiving_key = _root_step(ratchet.root, old.ratchet, their_key)
    kept = ratchet.receiving[1 - MOST_RECEIVING_CHAINS :]
    return DoubleRatchet(
        root,
        SendingChain(old.ratchet, b"", old.index),
        (*kept, ReceivingChain(their_key, receiving_key, 0, {})),
        ratchet.previous_counter,
        their_key,
    )


def _answer(ratchet: DoubleRatchet, their_key: bytes) -> DoubleRatchet:
    """Make the new key and chain that we write with after their turn."""
    ours = curve.generate()
    root, sending_key = _root_step(ratchet.root, ours, their_key)
    previous = max(ratchet.sending.index - 1, 0)
    return DoubleRatchet(root, SendingChain(ours, sending_key), ratchet.receiving, previous)


def _root_step(root: bytes, ours: KeyPair, their_key: bytes) -> tuple[bytes, bytes]:
    shared = curve.agree(ours.private, their_key)
    keys = derive(shared, 64, info=b"WhisperRatchet", salt=root)
    return keys[:32], keys[32:]


def _take(chain: ReceivingChain, index: int) -> tuple[ReceivingChain, bytes]:
    if index == chain.index:
        seed, following = chain_step(chain.key)
        return ReceivingChain(chain.ratchet, following, index + 1, chain.skipped), seed
    if index < chain.index:
        return _take_skipped(chain, index)
    return _jump(chain, index)


def _take_skipped(chain: ReceivingChain, index: int) -> tuple[ReceivingChain, bytes]:
    seed = chain.skipped.get(index)
    if seed is None:
        raise RepeatedMessage("the message was read already, or its key was given up")
    left = {each: key for each, key in chain.skipped.items() if each != index}
    return ReceivingChain(chain.ratchet, chain.key, chain.index, left), seed


def _jump(chain: ReceivingChain, index: int) -> tuple[ReceivingChain, bytes]:
    if index - chain.index > FARTHEST_JUMP:
        raise MessageTooFarAhead(f"{index - chain.index} messages would have to be passed over")
    key = chain.key
    passed: dict[int, bytes] = {}
    for place in range(chain.index, index):
        seed, key = chain_step(key)
        if index - place <= MOST_SKIPPED:  # beyond, they would be given up at once
            passed[place] = seed
    skipped = newest({**chain.skipped, **passed})
    seed, key = chain_step(key)
    return ReceivingChain(chain.ratchet, key, index + 1, skipped), seed


def newest(skipped: dict[int, bytes]) -> dict[int, bytes]:
    """Give up the oldest keys above the bound."""
    surplus = len(skipped) - MOST_SKIPPED
    return dict(islice(skipped.items(), surplus, None)) if surplus > 0 else skipped
