"""Tansu out of the wheel: a broker that speaks Kafka's protocol, on loopback, open to all.

It keeps everything in memory, and begins empty whenever it starts. For development and tests only.
"""

import asyncio
import struct
from pathlib import Path

from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.programs import Command
from whimbrel_cli.stack.wheels import kafka_binary

_API_VERSIONS = 18
_CORRELATION = 7
# Size, api key, api version, correlation id, client id (none).
_QUESTION = struct.pack(">ihhih", 10, _API_VERSIONS, 0, _CORRELATION, -1)
_ANSWER = struct.Struct(">iih")  # size, correlation id, error code


class Kafka:
    """The recipe of a broker that forgets everything when it ends."""

    name = "kafka"

    async def prepare(self) -> None:
        return None

    def command(self, port: int, log: Path) -> Command:
        url = f"tcp://{self.address(port)}"
        options = {
            "listener-url": url,
            "advertised-listener-url": url,
            "storage-engine": "memory://",
        }
        argv = [kafka_binary(), "broker", *(f"--{name}={value}" for name, value in options.items())]
        return Command(self.name, argv, log)

    async def answers(self, port: int) -> bool:
        """Ask which requests it knows, as every client does first."""
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            return False
        try:
            writer.write(_QUESTION)
            _, correlation, error = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))
            return (correlation, error) == (_CORRELATION, 0)
        except (OSError, EOFError):
            return False
        finally:
            writer.close()

    def address(self, port: int) -> str:
        return f"{LOOPBACK}:{port}"
