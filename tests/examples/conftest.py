"""A mesh, and people on it who use the example client."""

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.meshes import lasting_mesh
from tests.examples.node_client import NodeClient
from whimbrel_cli.stack.mesh import Mesh

_FRESH = {"WHIMBREL_MESSAGE_DEVICE_LISTS_FRESH": "PT0S"}


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """Two gateways, two message instances, two shards."""
    # A send right behind a new registration is told of it, not accepted for the old one.
    with lasting_mesh(env_of=dict.fromkeys(("message-1", "message-2"), _FRESH)) as mesh:
        yield mesh


class Foreigners:
    """Starts the example client, each time anew."""

    def __init__(self, mesh: Mesh, folder: Path) -> None:
        self._mesh = mesh
        self._folder = folder

    def client(
        self, handle: str = "", *, gateways: Sequence[str] = (), **options: Any
    ) -> NodeClient:
        """A new person, or one that was here before, with what they kept; at these gateways."""
        handle = handle or f"n{secrets.token_hex(8)}"
        chosen = gateways or self._mesh.gateway_addresses
        return NodeClient(handle, self._folder / handle, chosen, **options)


@pytest.fixture
def foreigners(mesh: Mesh, tmp_path: Path) -> Foreigners:
    return Foreigners(mesh, tmp_path)
