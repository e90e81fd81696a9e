"""Certificates for stores and for those who speak to them."""

from dataclasses import dataclass

from pydantic import FilePath

from mesh.authority import Authority
from mesh.store_tls import StoreTls


@dataclass(frozen=True)
class Files:
    """Certificates of one authority, and one that certified nobody here."""

    ca: FilePath
    server: tuple[FilePath, FilePath]
    mine: StoreTls
    stranger: StoreTls

    @property
    def unnamed(self) -> StoreTls:
        """Who shows no certificate."""
        return StoreTls(ca=self.ca)

    @property
    def deceived(self) -> StoreTls:
        """Who trusts another authority, and shows what the server takes."""
        return StoreTls(ca=self.stranger.ca, certificate=self.mine.certificate, key=self.mine.key)


def tls_of(authority: Authority, name: str) -> StoreTls:
    certificate, key = authority.issue(name)
    return StoreTls(ca=authority.ca, certificate=certificate, key=key)
