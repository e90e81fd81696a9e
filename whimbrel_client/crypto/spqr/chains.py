"""The symmetric part of SPQR (the Double Ratchet's specification, section 5): keys by epoch.

Each epoch's secret gives two chains, one a direction. A chain's keys are counted from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from whimbrel_client.crypto.derivation import derive
from whimbrel_client.crypto.double_ratchet import FARTHEST_JUMP, MOST_SKIPPED, newest
from whimbrel_client.crypto.errors import MalformedMessage, MessageTooFarAhead, MessageTooOld
from whimbrel_client.crypto.spqr.states import EpochSecret

MOST_EPOCHS = 5
_START = b"Signal PQ Ratchet V1 Chain  Start"
_ADD_EPOCH = b"Signal PQ Ratchet V1 Chain Add Epoch"
_NEXT = b"Signal PQ Ratchet V1 Chain Next"


@dataclass(frozen=True, slots=True, repr=False)
class Epoch:
    """Both chains of one epoch; the sending key is gone once a later epoch is written with."""

    number: int
    sending_key: bytes | None
    sending_index: int
    receiving_key: bytes
    receiving_index: int
    skipped: Mapping[int, bytes]


@dataclass(frozen=True, slots=True, repr=False)
class EpochChains:
    """The epochs whose keys are still needed, oldest first; their numbers have no gap."""

    root: bytes
    initiator: bool
    epochs: tuple[Epoch, ...]


def start(secret: bytes, *, initiator: bool) -> EpochChains:
    """Begin with epoch 0, whose secret is that of the session."""
    keys = derive(secret, 96, info=_START)
    return EpochChains(keys[:32], initiator, (_epoch(0, keys, initiator=initiator),))


def with_epoch(chains: EpochChains, new: EpochSecret | None) -> EpochChains:
    """Add the epoch whose secret has just been agreed on, if one has."""
    if new is None:
        return chains
    keys = derive(new.secret, 96, info=_ADD_EPOCH, salt=chains.root)
    added = _epoch(new.epoch, keys, initiator=chains.initiator)
    kept = chains.epochs[1 - MOST_EPOCHS :]
    return EpochChains(keys[:32], chains.initiator, (*kept, added))


def next_to_send(chains: EpochChains, number: int) -> tuple[EpochChains, int, bytes]:
    """Return the state after, the message's index and its key."""
    place = _place(chains, number)
    epoch = chains.epochs[place]
    if epoch.sending_key is None:
        raise MalformedMessage("an epoch that was left is not written with again")
    index = epoch.sending_index + 1
    next_key, key = _step(epoch.sending_key, index)
    after = Epoch(
        number, next_key, index, epoch.receiving_key, epoch.receiving_index, epoch.skipped
    )
    left = tuple(_left(each) for each in chains.epochs[:place])
    epochs = (*left, after, *chains.epochs[place + 1 :])
    return EpochChains(chains.root, chains.initiator, epochs), index, key


def to_receive(chains: EpochChains, number: int, index: int) -> tuple[EpochChains, bytes]:
    """Return the state after, and the key of the message at this place."""
    place = _place(chains, number)
    after, key = _take(chains.epochs[place], index)
    epochs = (*chains.epochs[:place], after, *chains.epochs[place + 1 :])
    return EpochChains(chains.root, chains.initiator, epochs), key


def _epoch(number: int, keys: bytes, *, initiator: bool) -> Epoch:
    first, second = keys[32:64], keys[64:]
    sending, receiving = (first, second) if initiator else (second, first)
    return Epoch(number, sending, 0, receiving, 0, {})


def _place(chains: EpochChains, number: int) -> int:
    place = number - chains.epochs[0].number
    if place < 0:
        raise MessageTooOld("the epoch's keys were given up")
    if place >= len(chains.epochs):
        raise MalformedMessage("the epoch has not been agreed on")
    return place


def _left(epoch: Epoch) -> Epoch:
    """Give up the key of an epoch that is not written with again."""
    if epoch.sending_key is None:
        return epoch
    return Epoch(
        epoch.number,
        None,
        epoch.sending_index,
        epoch.receiving_key,
        epoch.receiving_index,
        epoch.skipped,
    )


def _step(key: bytes, index: int) -> tuple[bytes, bytes]:
    keys = derive(key, 64, info=index.to_bytes(4) + _NEXT)
    return keys[:32], keys[32:]


def _take(epoch: Epoch, index: int) -> tuple[Epoch, bytes]:
    if index <= epoch.receiving_index:
        return _take_skipped(epoch, index)
    if index - epoch.receiving_index > FARTHEST_JUMP:
        raise MessageTooFarAhead("too many messages of an epoch would have to be passed over")
    chain_key, passed = epoch.receiving_key, {}
    for place in range(epoch.receiving_index + 1, index):
        chain_key, key = _step(chain_key, place)
        if index - place <= MOST_SKIPPED:
            passed[place] = key
    chain_key, key = _step(chain_key, index)
    skipped = newest({**epoch.skipped, **passed}) if passed else epoch.skipped
    return _receiving(epoch, chain_key, index, skipped), key


def _take_skipped(epoch: Epoch, index: int) -> tuple[Epoch, bytes]:
    key = epoch.skipped.get(index)
    if key is None:
        raise MessageTooOld("the message's post-quantum key was given up")
    left = {each: kept for each, kept in epoch.skipped.items() if each != index}
    return _receiving(epoch, epoch.receiving_key, epoch.receiving_index, left), key


def _receiving(epoch: Epoch, key: bytes, index: int, skipped: Mapping[int, bytes]) -> Epoch:
    return Epoch(epoch.number, epoch.sending_key, epoch.sending_index, key, index, skipped)
