"""A certificate authority in a directory, for a mesh that nobody gives certificates.

A service, or a team, is who its certificate says: the DNS name `NAME.whimbrel` among its
alternative names. The name is no address, and nobody looks it up.
"""

import ipaddress
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DOMAIN = "whimbrel"
_ARGUMENTS = 3
_AUTHORITY_LIFETIME = timedelta(days=3650)
_LIFETIME = timedelta(days=365)
# A clock that is a little behind must not refuse what was just made.
_BACKDATED = timedelta(hours=1)


class Authority:
    """Who certifies; `ca.pem` in the directory is what others trust, `ca-key.pem` signs."""

    def __init__(
        self, directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.ca = directory / "ca.pem"
        self._directory = directory
        self._certificate = certificate
        self._key = key

    @classmethod
    def at(cls, directory: Path) -> Self:
        """The one kept in the directory, made the first time. Raises OSError, ValueError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca, key_file = directory / "ca.pem", directory / "ca-key.pem"
        if ca.exists() and key_file.exists():
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{key_file} is not a key on an elliptic curve")
            return cls(directory, x509.load_pem_x509_certificate(ca.read_bytes()), key)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key)
        _write(key_file, _key_pem(key))
        _write(ca, certificate.public_bytes(serialization.Encoding.PEM))
        return cls(directory, certificate, key)

    def issue(
        self,
        name: str,
        *,
        hosts: Sequence[str] = (),
        lifetime: timedelta = _LIFETIME,
        into: Path | None = None,
    ) -> tuple[Path, Path]:
        """Make a certificate and its key for a service or a team, over those that are there.

        `hosts` are names and addresses that clients may know it by as well.
        """
        directory = into or self._directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(identity(name)), *map(_general_name, hosts)]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _begun(name, self._certificate.subject, key, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        files = directory / f"{name}.pem", directory / f"{name}-key.pem"
        _write(files[1], _key_pem(key))
        _write(files[0], certificate.public_bytes(serialization.Encoding.PEM))
        return files


def identity(name: str) -> str:
    """The alternative name by which a certificate names a service or a team."""
    return f"{name}.{DOMAIN}"


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = _subject("whimbrel local authority")
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _begun("whimbrel local authority", subject, key, _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _begun(
    common_name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(common_name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    """Replace the file in one step; only its owner may read it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    beside.replace(path)


if __name__ == "__main__":
    if len(sys.argv) != _ARGUMENTS:
        sys.exit("usage: python -m mesh.authority AUTHORITY NAME    writes it here")
    Authority.at(Path(sys.argv[1])).issue(sys.argv[2], into=Path())
