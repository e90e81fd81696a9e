"""How a client's connection to a gateway is made, and what is told if it cannot be.

An address is `https://host:port`, by TLS, or `host:port`, in the clear, for a gateway on this
machine or behind a balancer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from whimbrel_client.errors import BadAddress

_OPTIONS: Sequence[tuple[str, Any]] = (
    # A dead peer is noticed within 55 s, also while nothing is said.
    ("grpc.keepalive_time_ms", 45_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 1024 * 1024),
    # Clients in one process must not share a connection: a gateway allows few streams on one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


_TLS = "https://"
_CLEAR = "http://"

# What gRPC says of a handshake that failed, and what that means to people.
_TLS_FAILURES = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is of no authority that is trusted here",
    "Hostname Verification Check failed": "its certificate is of another host",
    "WRONG_VERSION_NUMBER": f"it speaks no TLS: an address without {_TLS}?",
}
_CLOSED_AT_ONCE = ("Socket closed", "Connection reset by peer", "Broken pipe")


def open_channel(address: str, ca: str = "") -> grpc.aio.Channel:
    """A channel of its own to this gateway.

    `ca`: authorities, PEM, one of which must have made its certificate; empty: those that gRPC has.
    """
    if not address.startswith(_TLS):
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(ca.encode() or None)
    return grpc.aio.secure_channel(address.removeprefix(_TLS), credentials, options=_OPTIONS)


def addressed(gateways: Sequence[str], *, by_tls: bool) -> tuple[str, ...]:
    """The addresses as they are kept; `by_tls`: also those that do not say how.

    Raises BadAddress.
    """
    return tuple(_address(gateway, by_tls=by_tls) for gateway in gateways)


def is_by_tls(gateways: Sequence[str]) -> bool:
    """Whether one of these addresses is reached by TLS."""
    return any(gateway.startswith(_TLS) for gateway in gateways)


def authorities(file: Path | str | None) -> str:
    """The content of a file of authorities; empty if there is no file. Raises BadAddress."""
    if file is None:
        return ""
    try:
        pem = Path(file).read_bytes()
        x509.load_pem_x509_certificates(pem)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds no certificate in PEM"
        raise BadAddress(f"the authorities in {file} cannot be used: {why}") from error
    return pem.decode()


def explained(gateway: str, details: str) -> str:
    """Why a gateway was not reached, in words if TLS is the reason, else as gRPC says it."""
    if gateway.startswith(_TLS):
        for said, means in _TLS_FAILURES.items():
            if said in details:
                return f"{gateway}: {means}"
    elif any(said in details for said in _CLOSED_AT_ONCE):
        return f"{gateway} closed the connection at once; does it want TLS, {_TLS}{gateway}?"
    return details


def _address(gateway: str, *, by_tls: bool) -> str:
    where = gateway.removeprefix(_TLS).removeprefix(_CLEAR).removesuffix("/")
    if not where or "/" in where:
        raise BadAddress(f"{gateway!r} is no gateway: host:port, {_TLS}host:port or {_CLEAR}…")
    is_clear = gateway.startswith(_CLEAR) or not (by_tls or gateway.startswith(_TLS))
    return where if is_clear else f"{_TLS}{where}"
