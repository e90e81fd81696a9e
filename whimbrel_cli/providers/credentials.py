"""What a mesh needs to talk to the simulators: an authority of their own, and keys of all kinds."""

import ipaddress
import json
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from whimbrel_cli.stack.files import write_private

APNS_KEY_ID, APNS_TEAM_ID, APNS_TOPIC = "WHIMBRELK1", "WHIMBRELT1", "example.whimbrel"
FCM_PROJECT, FCM_EMAIL, FCM_KEY_ID = "whimbrel-simulated", "push@whimbrel.example", "fcm-1"
VAPID_SUBJECT = "mailto:push@whimbrel.example"
_LIFE = timedelta(days=3650)


@dataclass(frozen=True)
class Credentials:
    """Files in one directory. Whoever holds it can pretend to be the simulators."""

    directory: Path

    @property
    def authority(self) -> Path:
        """The certificate to trust."""
        return self.directory / "ca.pem"

    @property
    def apns_key(self) -> Path:
        return self.directory / "apns.p8"

    @property
    def fcm_key(self) -> Path:
        return self.directory / "fcm.pem"

    @property
    def fcm_account(self) -> Path:
        return self.directory / "fcm-account.json"

    @property
    def vapid_key(self) -> Path:
        return self.directory / "vapid.pem"

    def make(self) -> None:
        """Make what is not there yet."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.authority.exists():
            self._make_certificates()
        for path in (self.apns_key, self.vapid_key):
            if not path.exists():
                write_private(path, _pem(ec.generate_private_key(ec.SECP256R1())))
        if not self.fcm_key.exists():
            write_private(self.fcm_key, _pem(rsa.generate_private_key(65537, 2048)))

    def write_account(self, token_uri: str) -> None:
        """The service account, as its owner downloads it."""
        account = {
            "type": "service_account",
            "project_id": FCM_PROJECT,
            "private_key_id": FCM_KEY_ID,
            "private_key": self.fcm_key.read_text(),
            "client_email": FCM_EMAIL,
            "token_uri": token_uri,
        }
        write_private(self.fcm_account, json.dumps(account, indent=2))

    def settings(self, url: str) -> dict[str, str]:
        """What a push service is told, for it to find the simulators at the URL."""
        settings = {
            "PROVIDER_CA": self.authority,
            "APNS_KEY": self.apns_key,
            "APNS_KEY_ID": APNS_KEY_ID,
            "APNS_TEAM_ID": APNS_TEAM_ID,
            "APNS_TOPIC": APNS_TOPIC,
            "APNS_URL": url,
            "FCM_ACCOUNT": self.fcm_account,
            "FCM_URL": url,
            "VAPID_KEY": self.vapid_key,
            "VAPID_SUBJECT": VAPID_SUBJECT,
            "WEB_PUSH_PRIVATE": "true",
        }
        return {f"WHIMBREL_PUSH_{name}": str(value) for name, value in settings.items()}

    def ec_public(self, path: Path) -> ec.EllipticCurvePublicKey:
        """The public half of one of the keys on P-256."""
        key = load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101  made above
        return key.public_key()

    def rsa_public(self) -> rsa.RSAPublicKey:
        """The public half of the service account's key."""
        key = load_pem_private_key(self.fcm_key.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)  # noqa: S101  made above
        return key.public_key()

    def tls(self) -> ssl.SSLContext:
        """For the server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.directory / "server.pem")
        context.set_alpn_protocols(["h2"])
        return context

    def _make_certificates(self) -> None:
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name = _name("Whimbrel simulated providers")
        ca = _certificate(ca_name, ca_name, ca_key.public_key(), path_length=0)
        leaf = _certificate(_name("127.0.0.1"), ca_name, key.public_key(), path_length=None)
        signed = leaf.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        write_private(self.directory / "server.pem", _pem(key) + signed)
        authority = ca.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        write_private(self.authority, authority)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    path_length: int | None,
) -> x509.CertificateBuilder:
    is_ca, now = path_length is not None, datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    )
    if is_ca:
        return builder
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
