"""Commands in processes of their own, as a person types them."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

SECONDS = 40


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Terminal:
    """Runs `whimbrel` commands in one data directory."""

    def __init__(self, data: Path, gateway: str) -> None:
        self.data = data
        self._gateway = gateway

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from whimbrel_cli.main import main; main()",
            *words,
            "--gateway",
            self._gateway,
            env={**os.environ, "WHIMBREL_DATA": str(self.data), "GRPC_ENABLE_FORK_SUPPORT": "0"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str, typed: bytes = b"") -> Ended:
        process = await self.start(*words)
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(typed)
        return Ended(process.returncode or 0, out.decode(), err.decode())
