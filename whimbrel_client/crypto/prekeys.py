"""Prekeys: what a device publishes so that others can open sessions with it unseen."""

from dataclasses import dataclass

from whimbrel_client.crypto import curve, kyber
from whimbrel_client.crypto.curve import KeyPair
from whimbrel_client.crypto.kyber import KemKeyPair


@dataclass(frozen=True, slots=True)
class OneTimePrekey:
    """An EC key that opens one session."""

    id: int
    pair: KeyPair


@dataclass(frozen=True, slots=True)
class SignedPrekey:
    """An EC key, signed by the identity, that opens sessions until it is rotated."""

    id: int
    pair: KeyPair
    signature: bytes


@dataclass(frozen=True, slots=True)
class KemPrekey:
    """A KEM key, signed by the identity: one-time, or the last resort when those are used up."""

    id: int
    pair: KemKeyPair
    signature: bytes
    is_last_resort: bool = False


@dataclass(frozen=True, slots=True)
class PublicPrekey:
    """The public half of a prekey as the key server hands it out."""

    id: int
    key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """All that is needed to open a session with one device."""

    identity: bytes
    registration_id: int
    signed: PublicPrekey
    kem: PublicPrekey
    one_time: tuple[int, bytes] | None = None


def one_time_prekey(key_id: int) -> OneTimePrekey:
    """Make a one-time EC prekey."""
    return OneTimePrekey(key_id, curve.generate())


def signed_prekey(key_id: int, identity: KeyPair) -> SignedPrekey:
    """Make a signed EC prekey."""
    pair = curve.generate()
    return SignedPrekey(key_id, pair, curve.sign(identity.private, pair.public))


def kem_prekey(key_id: int, identity: KeyPair, *, last_resort: bool = False) -> KemPrekey:
    """Make a KEM prekey."""
    pair = kyber.generate()
    return KemPrekey(key_id, pair, curve.sign(identity.private, pair.public), last_resort)


def verify(bundle: Bundle) -> None:
    """Raise InvalidKey or InvalidSignature unless the identity vouches for the bundle's keys."""
    curve.verify(bundle.identity, curve.checked(bundle.signed.key), bundle.signed.signature)
    curve.verify(bundle.identity, kyber.checked(bundle.kem.key), bundle.kem.signature)
