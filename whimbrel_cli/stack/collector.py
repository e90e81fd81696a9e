"""The collector of traces and metrics as a process of the mesh."""

import asyncio
import sys
from pathlib import Path

from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.programs import Command


class TraceCollector:
    """The recipe of the collector; it writes into `folder`."""

    name = "collector"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def prepare(self) -> None:
        return None

    def command(self, port: int, log: Path) -> Command:
        module = [sys.executable, "-m", "whimbrel_cli.observing"]
        return Command(self.name, [*module, str(self._folder), f"{LOOPBACK}:{port}"], log)

    async def answers(self, port: int) -> bool:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            return False
        writer.close()
        return True

    def address(self, port: int) -> str:
        return f"http://{LOOPBACK}:{port}"
