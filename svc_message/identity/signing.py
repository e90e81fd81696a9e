"""What a device signs to prove itself, and when such a proof counts; pure, and knows no account."""

from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from svc_message.identity.keys_model import DeviceKeys
from svc_message.identity.model import SignatureInvalid, SignatureStale

_TOLERANCE = timedelta(seconds=60)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def register_proof(
    handle: str, signed_at: int, *, phone_number: str = "", keys: DeviceKeys | None = None
) -> bytes:
    """The bytes that Register signs; `signed_at` in milliseconds."""
    if keys is None:
        return b"whimbrel register v1\0" + handle.encode() + b"\0" + _eight_bytes(signed_at)
    names = handle.encode() + b"\0" + phone_number.encode() + b"\0"
    public = keys.identity_key + keys.signed.public_key + keys.last_resort.public_key
    return b"whimbrel register v2\0" + names + public + _eight_bytes(signed_at)


def refresh_proof(user_id: bytes, device_id: int, signed_at: int) -> bytes:
    """The bytes that Refresh signs; `signed_at` in milliseconds."""
    device = user_id + device_id.to_bytes(4, "big")
    return b"whimbrel refresh v1\0" + device + b"\0" + _eight_bytes(signed_at)


def link_proof(user_id: bytes, token_hash: bytes, signed_at: int) -> bytes:
    """The bytes that LinkDevice signs; `signed_at` in milliseconds."""
    return b"whimbrel link v1\0" + user_id + token_hash + _eight_bytes(signed_at)


def check_fresh(signed_at: int, now: datetime) -> None:
    """Raise SignatureStale, with our time, if it was signed too far from now."""
    distance = abs(signed_at - (now - _EPOCH) // _MILLISECOND)
    if distance > _TOLERANCE // _MILLISECOND:
        server_time = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        raise SignatureStale(
            "signed too far from the server's time", metadata={"server_time": server_time}
        )


def check_signature(public_key: bytes, signature: bytes, proof: bytes) -> None:
    """Raise SignatureInvalid unless the key's owner signed the proof."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, proof)
    except (InvalidSignature, ValueError):
        raise SignatureInvalid("the signature does not verify") from None


def _eight_bytes(number: int) -> bytes:
    return number.to_bytes(8, "big")
