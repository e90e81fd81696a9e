"""People who type commands; each command is run within the test's own process."""

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from whimbrel_cli.main import app
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client


@dataclass
class Typist:
    """Somebody who types commands; each is a client of its own, one after another."""

    data: Path
    mesh: Mesh
    handle: str

    def types(self, *words: str, code: int = 0) -> str:
        """What the command prints; it ends with this code."""
        return self._run(*words, "--as", self.handle, code=code)

    def registers(self, *words: str, typed: str = "", code: int = 0) -> str:
        """The same of the command that makes the account; the answers to its questions."""
        return self._run("register", self.handle, *words, typed=typed, code=code)

    def _run(self, *words: str, typed: str = "", code: int) -> str:
        told = ("--data", str(self.data), "--gateway", self.mesh.gateway_addresses[0])
        done = CliRunner().invoke(app, [*words, *told], input=typed)
        assert done.exit_code == code, done.output
        return done.output


def people(data: Path, mesh: Mesh, count: int) -> list[Typist]:
    found = [Typist(data, mesh, f"p{secrets.token_hex(8)}") for _ in range(count)]
    for one in found:
        profile = data / "profiles" / one.handle
        asyncio.run(Client.register(profile, one.handle, gateways=mesh.gateway_addresses))
    return found
