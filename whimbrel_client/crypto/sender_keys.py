"""Sender keys (version 3): one chain a sender's device writes to a whole group with.

The sender hands its chain out over the 1:1 sessions; each message is then encrypted once, and
signed, since every reader could have encrypted it. A chain only goes forward: whoever leaves the
group must not get the next one, so the sender makes a new key then. All states are values.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from whimbrel.crypto.v1 import wire_pb2
from whimbrel_client.crypto import cbc, curve, randomness
from whimbrel_client.crypto.derivation import chain_step, derive
from whimbrel_client.crypto.double_ratchet import FARTHEST_JUMP, MOST_SKIPPED, newest
from whimbrel_client.crypto.errors import (
    ForgedMessage,
    InvalidKey,
    InvalidSignature,
    MalformedMessage,
    MessageTooFarAhead,
    RepeatedMessage,
    SessionMissing,
    UnsupportedVersion,
)
from whimbrel_client.crypto.wire import Ciphertext, MessageKind

VERSION = 3
MOST_CHAINS = 5
DISTRIBUTION_ID_SIZE = 16
_CHAIN_KEY_SIZE = 32
_FIRST_BYTE = bytes((VERSION << 4 | VERSION,))


@dataclass(frozen=True, slots=True, repr=False)
class SenderKey:
    """What this device writes to a group with."""

    distribution_id: bytes
    chain_id: int
    iteration: int
    chain_key: bytes
    signing_seed: bytes
    signing_key: bytes

    def distribution(self) -> bytes:
        """Let whoever gets this read what is written from now on."""
        message = wire_pb2.SenderKeyDistribution(
            distribution_id=self.distribution_id,
            chain_id=self.chain_id,
            iteration=self.iteration,
            chain_key=self.chain_key,
            signing_key=self.signing_key,
        )
        return _FIRST_BYTE + message.SerializeToString()

    def encrypt(self, plaintext: bytes) -> tuple["SenderKey", Ciphertext]:
        """Write a message to the group."""
        seed, following = chain_step(self.chain_key)
        key, iv = _message_keys(seed)
        message = wire_pb2.SenderKeyMessage(
            distribution_id=self.distribution_id,
            chain_id=self.chain_id,
            iteration=self.iteration,
            ciphertext=cbc.encrypt(key, iv, plaintext),
        )
        covered = _FIRST_BYTE + message.SerializeToString()
        signature = curve.sign_with_seed(self.signing_seed, covered)
        after = SenderKey(
            self.distribution_id,
            self.chain_id,
            self.iteration + 1,
            following,
            self.signing_seed,
            self.signing_key,
        )
        return after, Ciphertext(MessageKind.SENDER_KEY, covered + signature)


@dataclass(frozen=True, slots=True)
class SenderKeyMessage:
    """A message to a group as it came; its signature has not been looked at."""

    distribution_id: bytes
    chain_id: int
    iteration: int
    ciphertext: bytes
    covered: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, repr=False)
class SenderKeyDistribution:
    """A chain that a sender hands out."""

    distribution_id: bytes
    chain_id: int
    iteration: int
    chain_key: bytes
    signing_key: bytes


@dataclass(frozen=True, slots=True, repr=False)
class ReadingChain:
    """One chain of a sender, as its reader keeps it."""

    chain_id: int
    iteration: int
    chain_key: bytes
    signing_key: bytes
    skipped: Mapping[int, bytes]


@dataclass(frozen=True, slots=True, repr=False)
class SenderKeyReader:
    """What one device of a group is read with: its chains, the latest first."""

    chains: tuple[ReadingChain, ...] = ()

    def admit(self, distribution: SenderKeyDistribution) -> "SenderKeyReader":
        """Take a chain. One that is known stays as it is: going back would allow replays."""
        known = self._find(distribution.chain_id)
        if known is not None and known.signing_key == distribution.signing_key:
            return self
        chain = ReadingChain(
            distribution.chain_id,
            distribution.iteration,
            distribution.chain_key,
            distribution.signing_key,
            {},
        )
        others = tuple(each for each in self.chains if each is not known)
        return SenderKeyReader((chain, *others[: MOST_CHAINS - 1]))

    def decrypt(self, message: SenderKeyMessage) -> tuple["SenderKeyReader", bytes]:
        """Read a message; raises Undecryptable, and then nothing has changed."""
        chain = self._find(message.chain_id)
        if chain is None:
            raise SessionMissing("the sender's chain was not handed to us")
        try:
            curve.verify(chain.signing_key, message.covered, message.signature)
        except InvalidSignature as error:
            raise ForgedMessage("the signature does not fit") from error
        after, seed = _take(chain, message.iteration)
        key, iv = _message_keys(seed)
        plaintext = cbc.decrypt(key, iv, message.ciphertext)
        chains = tuple(after if each is chain else each for each in self.chains)
        return SenderKeyReader(chains), plaintext

    def _find(self, chain_id: int) -> ReadingChain | None:
        return next((chain for chain in self.chains if chain.chain_id == chain_id), None)


def create(distribution_id: bytes) -> SenderKey:
    """Begin a new chain; needed at first, and whenever a member or a device has left."""
    signing_seed, signing_key = curve.generate_for_signing()
    return SenderKey(
        distribution_id=distribution_id,
        chain_id=int.from_bytes(randomness.draw(4)) >> 1,
        iteration=0,
        chain_key=randomness.draw(_CHAIN_KEY_SIZE),
        signing_seed=signing_seed,
        signing_key=signing_key,
    )


def open_distribution(body: bytes) -> SenderKeyDistribution:
    """Read what a sender handed out; raises MalformedMessage or UnsupportedVersion."""
    message = wire_pb2.SenderKeyDistribution()
    _parse(message, body)
    _check_place(message)
    if len(message.chain_key) != _CHAIN_KEY_SIZE:
        raise MalformedMessage("a distribution holds no chain key")
    try:
        signing_key = curve.checked(message.signing_key)
    except InvalidKey as error:
        raise MalformedMessage("a distribution holds no signing key") from error
    return SenderKeyDistribution(
        message.distribution_id,
        message.chain_id,
        message.iteration,
        message.chain_key,
        signing_key,
    )


def open_message(body: bytes) -> SenderKeyMessage:
    """Read a frame; raises MalformedMessage or UnsupportedVersion."""
    covered, signature = body[: -curve.SIGNATURE_SIZE], body[-curve.SIGNATURE_SIZE :]
    message = wire_pb2.SenderKeyMessage()
    _parse(message, covered)
    _check_place(message)
    return SenderKeyMessage(
        message.distribution_id,
        message.chain_id,
        message.iteration,
        message.ciphertext,
        covered,
        signature,
    )


_Placed = wire_pb2.SenderKeyDistribution | wire_pb2.SenderKeyMessage


def _parse(message: _Placed, body: bytes) -> None:
    if not body:
        raise MalformedMessage("the message is empty or cut")
    if body[0] >> 4 != VERSION:
        raise UnsupportedVersion(f"version {body[0] >> 4} of sender keys is not spoken")
    try:
        message.ParseFromString(body[1:])
    except DecodeError as error:
        raise MalformedMessage("the message is no protobuf") from error


def _check_place(message: _Placed) -> None:
    placed = message.HasField("chain_id") and message.HasField("iteration")
    if not placed or len(message.distribution_id) != DISTRIBUTION_ID_SIZE:
        raise MalformedMessage("the message does not tell its place")


def _take(chain: ReadingChain, iteration: int) -> tuple[ReadingChain, bytes]:
    if iteration < chain.iteration:
        return _take_skipped(chain, iteration)
    if iteration - chain.iteration > FARTHEST_JUMP:
        raise MessageTooFarAhead("too many messages of the sender would have to be passed over")
    key, passed = chain.chain_key, {}
    for place in range(chain.iteration, iteration):
        seed, key = chain_step(key)
        if iteration - place <= MOST_SKIPPED:
            passed[place] = seed
    skipped = newest({**chain.skipped, **passed}) if passed else chain.skipped
    seed, key = chain_step(key)
    return ReadingChain(chain.chain_id, iteration + 1, key, chain.signing_key, skipped), seed


def _take_skipped(chain: ReadingChain, iteration: int) -> tuple[ReadingChain, bytes]:
    seed = chain.skipped.get(iteration)
    if seed is None:
        raise RepeatedMessage("the message was read already, or its key was given up")
    left = {each: key for each, key in chain.skipped.items() if each != iteration}
    after = ReadingChain(chain.chain_id, chain.iteration, chain.chain_key, chain.signing_key, left)
    return after, seed


def _message_keys(seed: bytes) -> tuple[bytes, bytes]:
    keys = derive(seed, 48, info=b"WhisperGroup")
    return keys[16:], keys[:16]
