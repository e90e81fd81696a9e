"""The file by which commands find a mesh that is up, and what it says."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from whimbrel_cli.stack.errors import NotUp
from whimbrel_cli.stack.files import write_private

_FILE = "mesh.json"


@dataclass(frozen=True)
class Description:
    """Where the parts of a mesh are; it holds passwords."""

    pid: int  # of the process that keeps the mesh up
    gateways: list[str]  # host:port
    message: list[str]  # host:port of the internal listeners
    shards: dict[str, str] = field(repr=False)  # DSN by name
    redis: str = field(repr=False)
    etcd: str
    ca: str = ""  # file with who certifies the gateways; empty: they speak plaintext

    @property
    def client_addresses(self) -> tuple[str, ...]:
        """The gateways as the SDK takes them, whatever an account was used to."""
        scheme = "https" if self.ca else "http"
        return tuple(f"{scheme}://{gateway}" for gateway in self.gateways)

    @property
    def client_ca(self) -> Path | None:
        """Who certifies them."""
        return Path(self.ca) if self.ca else None

    def write(self, data: Path) -> None:
        """Let others find the mesh; only the same user may read it."""
        write_private(data / _FILE, json.dumps(asdict(self), indent=2) + "\n")


def find_mesh(data: Path) -> Description:
    """The mesh that is up on the data directory; raises NotUp."""
    path = data / _FILE
    if not path.exists():
        raise NotUp(data)
    description = Description(**json.loads(path.read_text()))
    if not psutil.pid_exists(description.pid):
        raise NotUp(data)
    return description


def forget_mesh(data: Path) -> None:
    """Let nobody find it any more."""
    (data / _FILE).unlink(missing_ok=True)
