"""TLS to the stores: who must have certified them, and who this instance is to them.

Settings are checked when they are read, so that a file that is no certificate stops the start with
all other faults; what a store itself then shows is judged at each connection. Files that have been
changed since are used for new connections, if they are good (`mesh.renewal`).
"""

import ssl
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import grpc
from cryptography import x509
from pydantic import FilePath

from mesh.settings import Section
from mesh.tls import certificates_in, demand_pair

_PROVING = ("require", "verify-ca", "verify-full")
_SSL_MODES = ("disable", "allow", "prefer", *_PROVING)


class StoreTls(Section):
    """Whom to trust, and who this instance is. PEM files; without `ca` there is nothing of it."""

    ca: FilePath | None = None
    """Authorities that certify the store, for the name by which it is reached."""
    certificate: FilePath | None = None
    """Where the store asks for one: this instance's certificate to it, and what is between it and
    the authority."""
    key: FilePath | None = None
    """That certificate's private key."""

    def problems(self) -> list[str]:
        """What is wrong with it; quotes nothing of the files."""
        if (self.certificate is None) != (self.key is None):
            return ["certificate and key go together"]
        if self.ca is None:
            return ["certificate and key need ca"] if self.key else []
        return files_problems(self.ca, self.certificate, self.key)

    @property
    def files(self) -> list[Path]:
        """All that it names."""
        return [path for path in (self.ca, self.certificate, self.key) if path is not None]

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a channel of gRPC; None: plaintext. Raises OSError, ValueError."""
        ca = demand_good(self).ca
        if ca is None:
            return None
        chain = self.certificate.read_bytes() if self.certificate else None
        key = self.key.read_bytes() if self.key else None
        return grpc.ssl_channel_credentials(ca.read_bytes(), key, chain)


PLAINTEXT = StoreTls()


def demand_good(tls: StoreTls) -> StoreTls:
    """A validator of settings: itself, or ValueError."""
    if problems := tls.problems():
        raise ValueError("; ".join(problems))
    return tls


def files_problems(ca: Path | None, certificate: Path | None, key: Path | None) -> list[str]:
    """What is wrong with each file; quotes nothing of them."""
    problems = []
    try:
        if ca is not None:
            _ = certificates_in(ca.read_bytes(), ca)
    except (OSError, ValueError) as error:
        problems.append(str(error))
    try:
        if certificate is not None and key is not None:
            first: x509.Certificate = certificates_in(certificate.read_bytes(), certificate)[0]
            demand_pair(first, key.read_bytes(), key)
    except (OSError, ValueError) as error:
        problems.append(str(error))
    return problems


def dsn_problems(dsn: str) -> list[str]:
    """What is wrong with how a DSN asks for TLS; quotes nothing else of it."""
    try:
        told = {name: values[-1] for name, values in parse_qs(urlsplit(dsn).query).items()}
    except ValueError:  # its text may quote the password
        return ["it is no URL"]
    mode = told.get("sslmode", "")
    if mode and mode not in _SSL_MODES:
        return [f"sslmode is none of {', '.join(_SSL_MODES)}"]
    ca, certificate, key = (_path(told.get(f"ssl{name}")) for name in ("rootcert", "cert", "key"))
    if mode.startswith("verify-") and ca is None:
        return [f"sslmode={mode} needs sslrootcert"]
    if ca is not None and mode not in _PROVING:
        return ["sslrootcert proves nothing without sslmode=verify-full"]
    if (certificate is None) != (key is None):
        return ["sslcert and sslkey go together"]
    return files_problems(ca, certificate, key)


def dsn_with(tls: StoreTls, dsn: str) -> str:
    """The DSN, which asks for TLS if it says nothing of that itself."""
    if tls.ca is None:
        return dsn
    parts = urlsplit(dsn)
    if "sslmode" in parse_qs(parts.query):
        return dsn
    files = {"sslrootcert": tls.ca, "sslcert": tls.certificate, "sslkey": tls.key}
    asked = {name: str(path) for name, path in files.items() if path is not None}
    query = urlencode({"sslmode": "verify-full", **asked})
    return urlunsplit(parts._replace(query=f"{parts.query}&{query}".lstrip("&")))


def trusting(ca: Path | None) -> ssl.SSLContext | bool:
    """What httpx is to verify by: the authorities in the file and no other; True: the usual.

    Raises ValueError.
    """
    if problems := files_problems(ca, None, None):
        raise ValueError("; ".join(problems))
    return True if ca is None else ssl.create_default_context(cafile=str(ca))


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None
