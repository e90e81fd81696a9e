"""The states of the ML-KEM Braid, named as in Signal's specification, and what passes between them.

In each epoch one side is the key sender, the other the ciphertext sender; then they change roles.
"""

from dataclasses import dataclass
from enum import IntEnum, unique

from whimbrel_client.crypto.spqr.authenticator import Authenticator
from whimbrel_client.crypto.spqr.chunks import Chunk, Decoder, Encoder


@unique
class ChunkKind(IntEnum):
    """What a message carries, as on the wire."""

    NONE = 0
    HEADER = 1
    VECTOR = 2
    VECTOR_AND_ACK = 3
    ACK = 4
    CT1 = 5
    CT2 = 6


@dataclass(frozen=True, slots=True)
class BraidMessage:
    """What one side tells the other with one message."""

    epoch: int
    kind: ChunkKind
    chunk: Chunk | None = None


@dataclass(frozen=True, slots=True, repr=False)
class EpochSecret:
    """The secret that both sides have agreed on for an epoch."""

    epoch: int
    secret: bytes


@dataclass(frozen=True, slots=True, repr=False)
class KeysUnsampled:
    """Key sender: has not made its key pair yet."""


@dataclass(frozen=True, slots=True, repr=False)
class KeysSampled:
    """Key sender: is sending the header."""

    key_seed: bytes
    header: Encoder


@dataclass(frozen=True, slots=True, repr=False)
class HeaderSent:
    """Key sender: is sending the vector while ct1 arrives."""

    key_seed: bytes
    vector: Encoder
    ct1: Decoder


@dataclass(frozen=True, slots=True, repr=False)
class Ct1Received:
    """Key sender: has all of ct1, is sending the rest of the vector."""

    key_seed: bytes
    vector: Encoder
    ct1: bytes


@dataclass(frozen=True, slots=True, repr=False)
class EkSentCt1Received:
    """Key sender: waits for the rest of ct2."""

    key_seed: bytes
    ct1: bytes
    ct2: Decoder


@dataclass(frozen=True, slots=True, repr=False)
class NoHeaderReceived:
    """Ciphertext sender: waits for the header."""

    header: Decoder


@dataclass(frozen=True, slots=True, repr=False)
class HeaderReceived:
    """Ciphertext sender: has the header, has not encapsulated yet."""

    header: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Ct1Sampled:
    """Ciphertext sender: is sending ct1 while the vector arrives."""

    header: bytes
    encapsulation: bytes
    ct1: Encoder
    vector: Decoder


@dataclass(frozen=True, slots=True, repr=False)
class EkReceivedCt1Sampled:
    """Ciphertext sender: has the whole vector, is sending the rest of ct1."""

    encapsulation: bytes
    ct1: Encoder
    vector: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Ct1Acknowledged:
    """Ciphertext sender: ct1 has arrived, the vector not yet."""

    header: bytes
    encapsulation: bytes
    ct1: bytes
    vector: Decoder


@dataclass(frozen=True, slots=True, repr=False)
class Ct2Sampled:
    """Ciphertext sender: is sending ct2."""

    ct2: Encoder


KeySender = KeysUnsampled | KeysSampled | HeaderSent | Ct1Received | EkSentCt1Received
CiphertextSender = (
    NoHeaderReceived
    | HeaderReceived
    | Ct1Sampled
    | EkReceivedCt1Sampled
    | Ct1Acknowledged
    | Ct2Sampled
)


@dataclass(frozen=True, slots=True, repr=False)
class Braid:
    """One side of the braid."""

    epoch: int
    authenticator: Authenticator
    state: KeySender | CiphertextSender

    def at(self, state: KeySender | CiphertextSender) -> "Braid":
        return Braid(self.epoch, self.authenticator, state)


@dataclass(frozen=True, slots=True, repr=False)
class Sent:
    """A step that sends."""

    after: Braid
    message: BraidMessage
    secret: EpochSecret | None = None
