"""Someone who talks in the demo: says lines, hears the other's, and remembers both."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from whimbrel_cli.demo_tally import Heard, Said
from whimbrel_client import Client, OutgoingMessage, Protection
from whimbrel_client.bell import Bell

# So many lines are under way at once; a person types no faster than the mesh takes it.
_UNDER_WAY = 8


class Talker:
    """One person with one device."""

    def __init__(self, handle: str, client: Client, *, progress: Bell) -> None:
        self.handle = handle
        self.client = client
        self.accepted = 0
        self.heard: list[Heard] = []
        self._progress = progress
        self._said: list[tuple[str, OutgoingMessage]] = []

    async def talk(self, to: str, count: int) -> None:
        """Say so many lines, a few at a time, and wait until the mesh has them."""
        under_way: deque[OutgoingMessage] = deque()
        for number in range(count):
            text = f"{self.handle} {number + 1}"
            message = await self.client.send(to, text)
            self._said.append((text, message))
            under_way.append(message)
            if len(under_way) >= _UNDER_WAY:
                await self._accepted(under_way.popleft())
        for message in under_way:
            await self._accepted(message)

    async def listen(self) -> None:
        """See and read everything, for ever."""
        async for message in self.client.messages():
            self.heard.append(Heard(message.text or "", message.message_id, message.seq))
            await self.client.mark_read(message.conversation, message.seq)

    async def said(self) -> list[Said]:
        """What was said, with what is known of it now."""
        return [
            Said(
                text,
                message.outcome.message_id if message.outcome else None,
                message.outcome.seq if message.outcome else None,
                await self.client.tick(message),
            )
            for text, message in self._said
        ]

    async def all_read(self) -> None:
        """Return when the receipts say that all that was said is read."""
        seqs = [message.outcome.seq or 0 for _, message in self._said if message.outcome]
        async for receipt in self.client.receipts():
            if receipt.read_up_to >= max(seqs) and all(seq in receipt.delivered for seq in seqs):
                return

    async def _accepted(self, message: OutgoingMessage) -> None:
        await self.client.accepted(message)
        self.accepted += 1
        self._progress.ring()


@contextlib.asynccontextmanager
async def talker(
    handle: str, *, folder: Path, gateways: list[str], progress: Bell
) -> AsyncIterator[Talker]:
    """Register the person and connect them; they listen while the block lasts."""
    # The demo leaves nothing behind in anybody's key ring.
    in_file = Protection(key_ring=False)
    await Client.register(folder / handle, handle, gateways=gateways, protection=in_file)
    async with Client.connect(folder / handle) as client, asyncio.TaskGroup() as tasks:
        person = Talker(handle, client, progress=progress)
        listening = tasks.create_task(person.listen(), name=f"listen-{handle}")
        await client.online()
        yield person
        listening.cancel()
