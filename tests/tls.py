"""Who may speak with a mesh's services: channels by certificates that the mesh's authority made."""

from pathlib import Path
from typing import Any

import grpc

from mesh.authority import Authority
from mesh.tls import Identity, TlsSettings
from whimbrel_cli.stack.mesh import Mesh


def identity(directory: Path, name: str, *, authority: Path | None = None) -> Identity:
    """Somebody of this name, certified by what is in `authority`, by default the directory."""
    certifies = Authority.at(authority or directory)
    certificate, key = certifies.issue(name, into=directory)
    settings = TlsSettings(certificate=certificate, key=key, ca=certifies.ca)
    return Identity(settings, name)


def calling_as(
    mesh: Mesh, name: str, service: str = "message", *, address: str = "", **options: Any
) -> grpc.aio.Channel:
    """A channel to the first instance of a service, for a service or a team of this name."""
    addresses = {"message": mesh.message_addresses, "presence": mesh.presence_addresses}
    who = identity(mesh.data / "callers", name, authority=mesh.data / "tls")
    return who.channel(address or addresses[service][0], service, **options)
