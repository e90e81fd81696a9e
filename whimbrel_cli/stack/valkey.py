"""Valkey out of the wheel: in memory only, on loopback, behind a password."""

import asyncio
import secrets
from pathlib import Path

from whimbrel_cli.stack.files import read_or_make_secret, write_private
from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.programs import Command
from whimbrel_cli.stack.wheels import valkey_binary

DATABASES = 1024  # many, so that each test can have one of its own

_CONFIG = """\
bind {host}
port {port}
requirepass {password}
databases {databases}
save ""
appendonly no
dir {directory}
"""


class Valkey:
    """The recipe of a Valkey that forgets everything when it ends."""

    name = "valkey"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._password = ""

    async def prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        secret = self._directory / "password"
        self._password = read_or_make_secret(secret, make=lambda: secrets.token_urlsafe(24))

    def command(self, port: int, log: Path) -> Command:
        config = self._directory / "valkey.conf"
        text = _CONFIG.format(
            host=LOOPBACK,
            port=port,
            password=self._password,
            databases=DATABASES,
            directory=self._directory.resolve(),
        )
        write_private(config, text)  # a password on the command line would be for all to see
        return Command(self.name, [valkey_binary(), str(config)], log)

    async def answers(self, port: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            return False
        try:
            writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()

    def address(self, port: int) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{port}/0"
