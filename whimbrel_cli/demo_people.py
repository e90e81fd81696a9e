"""Who appears in the demo: people with devices, who say lines and remember what they see."""

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console

from whimbrel_cli.codes import sent_codes
from whimbrel_cli.demo_tally import Heard, Said
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client, Message, OutgoingMessage, Protection
from whimbrel_client.bell import Bell

# So many lines are under way at once; a person types no faster than the mesh takes it.
_UNDER_WAY = 8

# The demo leaves nothing behind in anybody's key ring.
_IN_FILE = Protection(key_ring=False)


class Talker:
    """One device of a person."""

    def __init__(self, client: Client, *, progress: Bell) -> None:
        self.client = client
        self.accepted = 0
        self._heard: dict[bytes, list[Heard]] = defaultdict(list)
        self._has_heard = Bell()
        self._progress = progress
        self._said: list[tuple[str, OutgoingMessage]] = []

    async def talk(self, to: str, count: int) -> None:
        """Say so many lines, a few at a time, and wait until the mesh has them."""
        under_way: deque[OutgoingMessage] = deque()
        for number in range(len(self._said), len(self._said) + count):
            text = f"{self.client.handle} {number + 1}"
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
            self._hear(message)
            await self.client.mark_read(message.conversation, message.seq)

    async def look_back(self) -> int:
        """See what was said before this device was linked; returns how much."""
        before = [message async for message in self.client.history.messages()]
        for message in reversed(before):
            self._hear(message)
        return len(before)

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

    def heard_from(self, other: "Talker") -> list[Heard]:
        """What was seen of a person, in the order in which it was."""
        return self._heard[other.client.user_id]

    async def has_heard(self, count: int) -> None:
        """Return when so many messages were seen."""
        while sum(map(len, self._heard.values())) < count:
            await self._has_heard.next_ring().wait()

    async def all_read(self) -> None:
        """Return when the receipts say that all that was said is read."""
        seqs = [message.outcome.seq or 0 for _, message in self._said if message.outcome]
        async for receipt in self.client.receipts():
            if receipt.read_up_to >= max(seqs) and all(seq in receipt.delivered for seq in seqs):
                return

    def _hear(self, message: Message) -> None:
        heard = Heard(message.text or "", message.message_id, message.seq, message.is_encrypted)
        self._heard[message.sender].append(heard)
        self._has_heard.ring()

    async def _accepted(self, message: OutgoingMessage) -> None:
        await self.client.accepted(message)
        self.accepted += 1
        self._progress.ring()


class Cast:
    """Brings people and devices to a mesh, and tells how."""

    def __init__(self, folder: Path, mesh: Mesh, console: Console, *, progress: Bell) -> None:
        self._folder = folder
        self._mesh = mesh
        self._console = console
        self._progress = progress

    async def register(self, handle: str, number: str) -> None:
        """Register the person by a code that the mesh sends to the number."""
        gateways = self._mesh.gateway_addresses
        await Client.request_code(number, gateways=gateways)
        codes = {sent.phone_number: sent.code for sent in sent_codes(self._mesh.data)}
        await Client.register(
            self._folder / handle,
            handle,
            gateways=gateways,
            number=number,
            code=codes[number],
            protection=_IN_FILE,
        )
        self._console.print(f"{handle} registers {number} with the code {codes[number]}.")

    async def link(self, primary: Talker, name: str) -> None:
        """Link a second device by the code that it shows."""
        shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            linking = tasks.create_task(
                Client.link(
                    self._folder / name,
                    gateways=self._mesh.gateway_addresses,
                    show=shown.set_result,
                    name=name,
                    protection=_IN_FILE,
                ),
                name=f"link-{name}",
            )
            await primary.client.link_device(await shown)
        account = linking.result()
        self._console.print(
            f"{account.handle} links a {name} by its code: it is device {account.device_id}."
        )

    @contextlib.asynccontextmanager
    async def online(self, profile: str, *, read_receipts: bool = True) -> AsyncIterator[Talker]:
        """The device, which listens while the block lasts."""
        async with (
            Client.connect(self._folder / profile, read_receipts=read_receipts) as client,
            asyncio.TaskGroup() as tasks,
        ):
            talker = Talker(client, progress=self._progress)
            if moved := await talker.look_back():
                self._console.print(f"It gets the {moved:,} messages of before from the first.")
            listening = tasks.create_task(talker.listen(), name=f"listen-{profile}")
            await client.online()
            yield talker
            listening.cancel()
