"""The simulators of push providers as a process of the mesh."""

import asyncio
import sys
from pathlib import Path

from whimbrel_cli.providers.credentials import Credentials
from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.programs import Command


class PushProviders:
    """The recipe of the simulators; `arrivals` is the file where each push is a line."""

    name = "push-providers"

    def __init__(self, directory: Path, arrivals: Path) -> None:
        self._directory = directory
        self._arrivals = arrivals

    @property
    def credentials(self) -> Credentials:
        """What both sides know."""
        return Credentials(self._directory)

    async def prepare(self) -> None:
        return None

    def command(self, port: int, log: Path) -> Command:
        module = [sys.executable, "-m", "whimbrel_cli.providers"]
        return Command(
            self.name, [*module, str(self._directory), str(port), str(self._arrivals)], log
        )

    async def answers(self, port: int) -> bool:
        # It listens once its keys are made.
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            return False
        writer.close()
        return True

    def address(self, port: int) -> str:
        return f"https://{LOOPBACK}:{port}"
