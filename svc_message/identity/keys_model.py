"""The public keys of devices, and which of them may be stored; pure, and knows no account."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PublicKey

from mesh.errors import WhimbrelError
from svc_message.identity.xeddsa import PUBLIC_KEY_BYTES, is_public_key, verifies

KEM_KEY_BYTES = 1569

_KEM_TYPE = 0x08


class KeyInvalid(WhimbrelError):
    """A key is malformed, or there are too many."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "KEY_INVALID"


class KeySignatureInvalid(WhimbrelError):
    """A key is not signed by the account's identity key."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "SIGNATURE_INVALID"


@dataclass(frozen=True, slots=True)
class OneTimeKey:
    """An EC key that is given out once."""

    id: int
    public_key: bytes


@dataclass(frozen=True, slots=True)
class SignedKey:
    """An EC or a KEM key under the identity key's signature."""

    id: int
    public_key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """What a device has from its first moment on."""

    identity_key: bytes
    registration_id: int
    signed: SignedKey
    last_resort: SignedKey

    def check(self) -> None:
        """Raise KeyInvalid or KeySignatureInvalid unless all may be stored."""
        check_identity_key(self.identity_key)
        Upload(self.signed, self.last_resort).check(self.identity_key)

    @property
    def columns(self) -> tuple[bytes, int, int, bytes, bytes, int, bytes, bytes]:
        """The arguments of the SQL function put_device_keys after the device."""
        signed, last = self.signed, self.last_resort
        return (
            *(self.identity_key, self.registration_id),
            *(signed.id, signed.public_key, signed.signature),
            *(last.id, last.public_key, last.signature),
        )


@dataclass(frozen=True, slots=True)
class Upload:
    """Keys that replace those of a device; what is missing stays."""

    signed: SignedKey | None = None
    last_resort: SignedKey | None = None
    one_time: Sequence[OneTimeKey] = ()
    one_time_kem: Sequence[SignedKey] = ()

    def check(self, identity_key: bytes) -> None:
        """Raise KeyInvalid or KeySignatureInvalid unless all may be stored.

        A full upload takes some 40 ms of CPU, most of it without the interpreter's lock.
        """
        _check_ids("one_time_prekeys", self.one_time)
        _check_ids("one_time_kem_prekeys", self.one_time_kem)
        for name, key in _each("signed_prekey", self.signed):
            _check_signed(name, key, identity_key)
            _check_ec(name, key)
        for name, key in (
            *_each("last_resort_prekey", self.last_resort),
            *(("one_time_kem_prekeys", key) for key in self.one_time_kem),
        ):
            _check_signed(name, key, identity_key)
            _check_kem(name, key)
        for one_time in self.one_time:
            _check_ec("one_time_prekeys", one_time)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What opens a session to one device."""

    device_id: int
    registration_id: int
    signed: SignedKey
    one_time: OneTimeKey | None
    kem: SignedKey


def check_identity_key(public_key: bytes) -> None:
    """Raise KeyInvalid unless the bytes are an EC key."""
    if not is_public_key(public_key):
        raise _invalid("identity_key", f"{PUBLIC_KEY_BYTES} bytes, an X25519 key after 0x05")


def _each(name: str, key: SignedKey | None) -> tuple[tuple[str, SignedKey], ...]:
    return () if key is None else ((name, key),)


def _check_ids(name: str, pool: Sequence[OneTimeKey] | Sequence[SignedKey]) -> None:
    if len({key.id for key in pool}) < len(pool):
        raise _invalid(name, "ids that differ")


def _check_ec(name: str, key: OneTimeKey | SignedKey) -> None:
    if not is_public_key(key.public_key):
        raise _invalid(name, f"{PUBLIC_KEY_BYTES} bytes, an X25519 key after 0x05")


def _check_kem(name: str, key: SignedKey) -> None:
    # Kyber's keys and ML-KEM's are the same; loading one checks every coefficient.
    try:
        MLKEM1024PublicKey.from_public_bytes(key.public_key[1:])
        well = key.public_key[0] == _KEM_TYPE
    except ValueError:
        well = False
    if not well:
        raise _invalid(name, f"{KEM_KEY_BYTES} bytes, a Kyber-1024 key after 0x08")


def _check_signed(name: str, key: SignedKey, identity_key: bytes) -> None:
    if not verifies(identity_key, key.public_key, key.signature):
        raise KeySignatureInvalid(
            "a key is not signed by the account's identity key", metadata={"field": name}
        )


def _invalid(name: str, allowed: str) -> KeyInvalid:
    return KeyInvalid(
        f"{name} is not as it has to be", metadata={"field": name, "allowed": allowed}
    )
