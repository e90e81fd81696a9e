"""PQXDH (Signal's specification): two sides agree on secrets while one of them is away.

The associated data of the specification (both identities) is what each message's MAC covers.
"""

from dataclasses import dataclass

from whimbrel_client.crypto import curve, kyber, prekeys
from whimbrel_client.crypto.curve import KeyPair
from whimbrel_client.crypto.derivation import derive
from whimbrel_client.crypto.prekeys import Bundle, KemPrekey, OneTimePrekey, SignedPrekey

_DOMAIN = b"\xff" * 32
_INFO = b"WhisperText_X25519_SHA-256_CRYSTALS-KYBER-1024"


@dataclass(frozen=True, slots=True, repr=False)
class Agreed:
    """What both sides then hold."""

    root: bytes
    chain: bytes
    pq: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Initiation:
    """What the initiator holds, and what it must tell."""

    agreed: Agreed
    base_key: bytes
    kem_ciphertext: bytes


@dataclass(frozen=True, slots=True)
class PrivatePrekeys:
    """The prekeys that a first message names, as the device kept them."""

    signed: SignedPrekey
    kem: KemPrekey
    one_time: OneTimePrekey | None = None


def initiate(identity: KeyPair, bundle: Bundle) -> Initiation:
    """Agree with a device by its bundle; raises InvalidKey or InvalidSignature."""
    prekeys.verify(bundle)
    base = curve.generate()
    secrets = [
        curve.agree(identity.private, bundle.signed.key),
        curve.agree(base.private, bundle.identity),
        curve.agree(base.private, bundle.signed.key),
    ]
    if bundle.one_time is not None:
        secrets.append(curve.agree(base.private, bundle.one_time[1]))
    kem_secret, ciphertext = kyber.encapsulate(bundle.kem.key)
    return Initiation(_agreed(*secrets, kem_secret), base.public, ciphertext)


def respond(
    identity: KeyPair,
    own: PrivatePrekeys,
    *,
    their_identity: bytes,
    base_key: bytes,
    kem_ciphertext: bytes,
) -> Agreed:
    """Agree with whoever used our prekeys; raises InvalidKey."""
    secrets = [
        curve.agree(own.signed.pair.private, their_identity),
        curve.agree(identity.private, base_key),
        curve.agree(own.signed.pair.private, base_key),
    ]
    if own.one_time is not None:
        secrets.append(curve.agree(own.one_time.pair.private, base_key))
    return _agreed(*secrets, kyber.decapsulate(own.kem.pair.seed, kem_ciphertext))


def _agreed(*secrets: bytes) -> Agreed:
    keys = derive(_DOMAIN + b"".join(secrets), 96, info=_INFO)
    return Agreed(keys[:32], keys[32:64], keys[64:])
