"""The frames of session messages: version byte, protobuf, truncated MAC. Knows no state."""

from dataclasses import dataclass
from enum import Enum, unique

from google.protobuf.message import DecodeError

from whimbrel.crypto.v1 import wire_pb2
from whimbrel_client.crypto import curve, kyber
from whimbrel_client.crypto.derivation import mac, same
from whimbrel_client.crypto.errors import (
    ForgedMessage,
    InvalidKey,
    MalformedMessage,
    UnsupportedVersion,
)

VERSION = 4
MAC_SIZE = 8
_FIRST_BYTE = bytes((VERSION << 4 | VERSION,))


@unique
class MessageKind(Enum):
    """Which of the three frames a ciphertext has; the envelope tells it."""

    RATCHET = "ratchet"
    PREKEY = "prekey"
    SENDER_KEY = "sender key"


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """What is handed to the mesh."""

    kind: MessageKind
    body: bytes


@dataclass(frozen=True, slots=True)
class RatchetMessage:
    """A message of an established session, as it came; its MAC has not been looked at."""

    ratchet_key: bytes
    counter: int
    ciphertext: bytes
    pq_ratchet: bytes | None
    covered: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class PrekeyMessage:
    """A message that also opens its session."""

    one_time_id: int | None
    signed_id: int
    kem_id: int
    kem_ciphertext: bytes
    base_key: bytes
    identity: bytes
    registration_id: int
    inner: RatchetMessage


def seal(
    message: wire_pb2.RatchetMessage, mac_key: bytes, *, sender: bytes, receiver: bytes
) -> bytes:
    """Frame a message of the sender's identity for the receiver's."""
    covered = _FIRST_BYTE + message.SerializeToString()
    return covered + mac(mac_key, sender + receiver + covered)[:MAC_SIZE]


def prove(message: RatchetMessage, mac_key: bytes, *, sender: bytes, receiver: bytes) -> None:
    """Raise ForgedMessage unless the MAC fits."""
    expected = mac(mac_key, sender + receiver + message.covered)[:MAC_SIZE]
    if not same(expected, message.mac):
        raise ForgedMessage("the MAC does not fit")


def frame_prekey(message: wire_pb2.PrekeyMessage) -> bytes:
    """Frame a message that opens its session."""
    return _FIRST_BYTE + message.SerializeToString()


def open_ratchet(body: bytes) -> RatchetMessage:
    """Read a frame; raises MalformedMessage or UnsupportedVersion."""
    covered, tag = body[:-MAC_SIZE], body[-MAC_SIZE:]
    _check_version(covered)
    message = wire_pb2.RatchetMessage()
    _parse(message, covered[1:])
    if not (message.HasField("counter") and message.ciphertext):
        raise MalformedMessage("a message lacks its counter or its ciphertext")
    return RatchetMessage(
        ratchet_key=_public_key(message.ratchet_key),
        counter=message.counter,
        ciphertext=message.ciphertext,
        pq_ratchet=message.pq_ratchet or None,
        covered=covered,
        mac=tag,
    )


def open_prekey(body: bytes) -> PrekeyMessage:
    """Read a frame and the one inside; raises MalformedMessage or UnsupportedVersion."""
    _check_version(body)
    message = wire_pb2.PrekeyMessage()
    _parse(message, body[1:])
    if not (message.HasField("signed_id") and message.HasField("kem_id")):
        raise MalformedMessage("a first message names no signed or no KEM prekey")
    if len(message.kem_ciphertext) != kyber.CIPHERTEXT_SIZE:
        raise MalformedMessage("a first message holds no KEM ciphertext")
    return PrekeyMessage(
        one_time_id=message.one_time_id if message.HasField("one_time_id") else None,
        signed_id=message.signed_id,
        kem_id=message.kem_id,
        kem_ciphertext=message.kem_ciphertext,
        base_key=_public_key(message.base_key),
        identity=_public_key(message.identity_key),
        registration_id=message.registration_id,
        inner=open_ratchet(message.message),
    )


def _check_version(covered: bytes) -> None:
    if not covered:
        raise MalformedMessage("the message is empty or cut")
    if covered[0] >> 4 != VERSION:
        raise UnsupportedVersion(f"version {covered[0] >> 4} is not spoken")


def _parse(message: wire_pb2.RatchetMessage | wire_pb2.PrekeyMessage, body: bytes) -> None:
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise MalformedMessage("the message is no protobuf") from error


def _public_key(key: bytes) -> bytes:
    try:
        return curve.checked(key)
    except InvalidKey as error:
        raise MalformedMessage("the message holds no public key where one belongs") from error
