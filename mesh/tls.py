"""TLS: certificates in files, checked when they are read, read again when they have changed.

Within a few seconds of a change (`mesh.renewal`) new connections are made with the new ones;
streams on old connections go on until they end by themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import FilePath

from mesh.authority import DOMAIN, identity
from mesh.metrics import CERTIFICATE_EXPIRY
from mesh.renewal import Renewing
from mesh.settings import Section
from mesh.tasks import periodically
from mesh.telemetry import OFF, Telemetry

_LOOK_EVERY = timedelta(seconds=2)
_SUFFIX = f".{DOMAIN}"


class TlsSettings(Section):
    """Who this instance is to other services. All three files, PEM, or `insecure`."""

    certificate: FilePath | None = None
    """Its certificate and what is between it and the authority; the certificate's alternative
    names hold NAME.whimbrel, such as message.whimbrel."""
    key: FilePath | None = None
    """The certificate's private key."""
    ca: FilePath | None = None
    """Authorities that certify services and teams; nobody else's certificates are taken."""
    insecure: bool = False
    """Speak plaintext instead, and believe callers who they say they are; for closed networks."""

    def problems(self, service: str) -> list[str]:
        """What is wrong with it, for an instance of the service."""
        files = {"certificate": self.certificate, "key": self.key, "ca": self.ca}
        if self.insecure:
            return ["insecure goes without certificate, key and ca"] if any(files.values()) else []
        missing = [name for name, path in files.items() if path is None]
        if missing:
            return [f"{', '.join(missing)} missing; or insecure=true, for plaintext"]
        try:
            _ = Certificates.read(self, service)
        except (OSError, ValueError) as error:
            return [str(error)]
        return []


class ListenerSettings(Section):
    """What a listener for clients shows. Both files, PEM, or none, for plaintext."""

    certificate: FilePath | None = None
    """The certificate, and what is between it and an authority that clients trust."""
    key: FilePath | None = None
    """The certificate's private key."""

    @property
    def is_plaintext(self) -> bool:
        """Whether there is none."""
        return self.certificate is None and self.key is None

    def problems(self) -> list[str]:
        """What is wrong with it."""
        if self.is_plaintext:
            return []
        try:
            _ = Certificates.read(self)
        except (OSError, ValueError) as error:
            return [str(error)]
        return []


@dataclass(frozen=True, slots=True)
class Certificates:
    """The content of one set of files."""

    chain: bytes
    key: bytes = field(repr=False)
    expires_at: datetime
    ca: bytes | None = None
    """Who certifies the other end; without it, anybody may come."""

    @classmethod
    def read(cls, settings: TlsSettings | ListenerSettings, service: str = "") -> Self:
        """Read and check them. Raises OSError; ValueError, which quotes nothing of them."""
        if settings.certificate is None or settings.key is None:
            raise ValueError("certificate and key go together")
        chain, key = settings.certificate.read_bytes(), settings.key.read_bytes()
        certificate = certificates_in(chain, settings.certificate)[0]
        demand_pair(certificate, key, settings.key)
        expires_at = certificate.not_valid_after_utc
        if expires_at <= datetime.now(UTC):
            raise ValueError(f"{settings.certificate} has expired")
        if isinstance(settings, ListenerSettings):
            return cls(chain, key, expires_at)
        if settings.ca is None:
            raise ValueError("certificate, key and ca are needed")
        ca = settings.ca.read_bytes()
        _ = certificates_in(ca, settings.ca)
        if identity(service) not in _dns_names(certificate):
            raise ValueError(f"{settings.certificate} is not of {identity(service)}")
        return cls(chain, key, expires_at, ca)


class Renewed:
    """Certificates as their files last held good ones; none at all is plaintext."""

    def __init__(
        self,
        files: Sequence[Path | None],
        read: Callable[[], Certificates],
        *,
        is_plaintext: bool,
        shown_to: str,
        telemetry: Telemetry,
    ) -> None:
        """Raises OSError and ValueError for files that are not good."""
        self._certificates: Certificates | None = None
        self._listeners: list[Callable[[], None]] = []
        if not is_plaintext:
            named = [path for path in files if path is not None]
            self._renewing = Renewing(named, read, telemetry=telemetry)
            self._certificates = self._renewing.now()
            telemetry.gauge(CERTIFICATE_EXPIRY, self._seconds_left, {"shown_to": shown_to})

    @property
    def is_secure(self) -> bool:
        """Whether connections are encrypted."""
        return self._certificates is not None

    def on_renewed(self, listener: Callable[[], None]) -> None:
        """Call it whenever new files were taken."""
        self._listeners.append(listener)

    def off_renewed(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """For a listener; each handshake is made with the files as last read. None: plaintext."""
        if self._certificates is None:
            return None
        served = self._certificates

        def fetch() -> Any:  # called in a thread of gRPC's, at each handshake
            nonlocal served
            current = self._certificates
            if current is None or current is served:
                return None
            served = current
            return _configuration(current)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(served), fetch, require_client_authentication=served.ca is not None
        )

    async def run(self) -> None:
        """Look for new files until cancelled."""
        await periodically(self.look, _LOOK_EVERY, name="certificates")

    async def look(self) -> None:
        """Take new files, if there are any."""
        self.renew()

    def renew(self) -> None:
        """The same, for those who have no loop."""
        if self._certificates is None:
            return
        before, self._certificates = self._certificates, self._renewing.now()
        if self._certificates is before:
            return
        for listener in [*self._listeners]:
            listener()

    def _seconds_left(self) -> float:
        if self._certificates is None:
            return 0.0
        return (self._certificates.expires_at - datetime.now(UTC)).total_seconds()


class ClientListener(Renewed):
    """What a listener shows to clients, of whom it demands no certificate."""

    def __init__(self, settings: ListenerSettings, *, telemetry: Telemetry = OFF) -> None:
        """Raises OSError and ValueError for files that are not good."""
        super().__init__(
            (settings.certificate, settings.key),
            lambda: Certificates.read(settings),
            is_plaintext=settings.is_plaintext,
            shown_to="clients",
            telemetry=telemetry,
        )


class Identity(Renewed):
    """What an instance shows to others, and demands of them."""

    def __init__(self, settings: TlsSettings, service: str, *, telemetry: Telemetry = OFF) -> None:
        """Raises OSError and ValueError for files that are not good."""
        self.service = service
        super().__init__(
            (settings.certificate, settings.key, settings.ca),
            lambda: Certificates.read(settings, service),
            is_plaintext=settings.insecure,
            shown_to="services",
            telemetry=telemetry,
        )

    @classmethod
    def insecure(cls, service: str) -> Self:
        """One that proves nothing."""
        return cls(TlsSettings(insecure=True), service)

    def channel(
        self,
        address: str,
        service: str,
        *,
        options: Sequence[tuple[str, Any]] = (),
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> grpc.aio.Channel:
        """A channel to an instance of the service, which must prove that it is one."""
        if self._certificates is None:
            # The only thing that says who calls.
            named = [*options, ("grpc.primary_user_agent", identity(self.service))]
            return grpc.aio.insecure_channel(address, named, interceptors=interceptors)
        made = self._certificates
        credentials = grpc.ssl_channel_credentials(made.ca, made.key, made.chain)
        # Instances are found by address: their certificates speak of the service.
        named = [*options, ("grpc.ssl_target_name_override", identity(service))]
        return grpc.aio.secure_channel(address, credentials, named, interceptors=interceptors)


def peer_of(context: Any, *, is_secure: bool) -> str:
    """The service or team that calls; empty if it is none.

    By its certificate, which the listener has checked; without TLS, by what it says of itself.
    """
    if is_secure:
        claims = context.auth_context().get("x509_subject_alternative_name", ())
        names = [name.decode(errors="replace") for name in claims]
    else:
        metadata = dict(context.invocation_metadata() or ())
        names = [str(metadata.get("user-agent", "")).split(" ", 1)[0]]
    ours = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}
    return ours.pop() if len(ours) == 1 else ""  # two names are nobody's


def _configuration(certificates: Certificates) -> Any:
    pair = (certificates.key, certificates.chain)
    return grpc.ssl_server_certificate_configuration([pair], certificates.ca)


def certificates_in(pem: bytes, path: Path) -> list[x509.Certificate]:
    """What stands in the file. Raises ValueError, which quotes nothing of it."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"{path} holds no certificate") from None


def demand_pair(certificate: x509.Certificate, pem: bytes, path: Path) -> None:
    """Raise ValueError, which quotes nothing of it, unless the file has the certificate's key."""
    try:
        key: Any = load_pem_private_key(pem, None)
    except (TypeError, ValueError):
        raise ValueError(f"{path} holds no private key") from None
    if _spki(key.public_key()) != _spki(certificate.public_key()):
        raise ValueError(f"{path} is not the certificate's key")


def _spki(key: Any) -> bytes:
    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.DNSName)
