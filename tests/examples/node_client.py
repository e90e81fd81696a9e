"""The example client as a child process: told what to do, and heard, in JSON lines."""

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.whimbrel_client.crypto.libsignal import install

WITHIN = 60.0  # seconds that a test waits for anything

Event = dict[str, Any]


class NodeClient:
    """One person with the real libsignal; enter it to come online, leave it to half-close."""

    def __init__(
        self, handle: str, profile: Path, gateways: Sequence[str], *, after: int = 0
    ) -> None:
        self.handle = handle
        self.heard: list[Event] = []
        self._profile = profile
        self._gateways = gateways
        self._after = after
        self._news = asyncio.Condition()
        self._names = itertools.count(1)
        self._is_over = False
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        script = install.example() / "chat.js"
        gateways = [f"--gateway={address}" for address in self._gateways]
        options = ["--json", f"--profile={self._profile}", f"--after={self._after}", *gateways]
        self._process = await asyncio.create_subprocess_exec(
            *(install.node(), str(script), *options, self.handle),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        self._reading = asyncio.create_task(self._read(), name="node-client")
        await self.until(lambda: bool(self.all("registered")))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            async with asyncio.timeout(WITHIN):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise
        await self._reading
        assert kind is not None or self._process.returncode in {0, -9}

    @property
    def user_id(self) -> bytes:
        return bytes.fromhex(self.all("registered")[0]["user"])

    async def kill(self) -> None:
        """End the process without a chance to tidy up."""
        self._process.kill()
        await self._process.wait()

    async def online(self) -> None:
        await self.until(lambda: bool(self.all("online")))

    async def send(self, to: str, *texts: str) -> None:
        """Queue words for a handle."""
        for text in texts:
            await self._tell({"send": str(next(self._names)), "to": to, "text": text})

    async def read(self, chat: bytes, up_to_seq: int) -> None:
        await self._tell({"read": chat.hex(), "upTo": up_to_seq})

    def all(self, kind: str) -> list[Event]:
        return [event for event in self.heard if event["event"] == kind]

    @property
    def texts(self) -> list[str]:
        """What was received, in the order in which it came; None for what could not be read."""
        return [message.get("text") for message in self.all("message")]

    async def accepted(self, count: int, within: float = WITHIN) -> list[Event]:
        await self.until(lambda: len(self.all("accepted")) >= count, within)
        return self.all("accepted")

    async def received(self, count: int, within: float = WITHIN) -> list[str]:
        await self.until(lambda: len(self.texts) >= count, within)
        return self.texts

    async def receipt_covering(self, seq: int, *, is_read: bool = False) -> None:
        def covers(receipt: Event) -> bool:
            delivered = any(one["first"] <= seq <= one["last"] for one in receipt["delivered"])
            return delivered and (not is_read or receipt["readUpTo"] >= seq)

        await self.until(lambda: any(map(covers, self.all("receipt"))))

    async def until(self, condition: Callable[[], bool], within: float = WITHIN) -> None:
        """Wait until what was heard is so; fails the test with what was heard instead."""
        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(lambda: condition() or self._is_over)
        except TimeoutError:
            raise TimeoutError(f"{self.handle} heard {self.heard[-10:]}") from None
        assert condition(), f"{self.handle} has ended; it heard {self.heard[-10:]}"

    async def _tell(self, command: Event) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._news:
                self.heard.append(json.loads(line))
                self._news.notify_all()
        async with self._news:
            self._is_over = True
            self._news.notify_all()
