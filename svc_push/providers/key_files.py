"""The files of keys that providers know us by, and of authorities that we know them by."""

import ssl
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def load_p256_key(path: Path) -> EllipticCurvePrivateKey:
    """Read a PEM file. Raises ValueError unless it is a private key on P-256, OSError."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (TypeError, ValueError):
        key = None  # the cause may quote the file, so it is dropped
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError(f"{path} is not a private key on P-256")
    return key


def check_authorities(path: Path) -> None:
    """Read a PEM file. Raises ValueError unless certificates are in it, OSError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificates") from None
