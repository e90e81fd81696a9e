"""`whimbrel chat`: the screen of `whimbrel_cli.screen`, or one conversation line by line."""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from whimbrel_cli.chat_view import View, choose_view
from whimbrel_cli.person import As, Data, Gateways, Person, account_of, person, run
from whimbrel_cli.stdin import batches
from whimbrel_client import (
    Client,
    HandleUnknown,
    NotSent,
    OutgoingMessage,
    Receipt,
    Tick,
    Unreachable,
)

_POLL_SECONDS = 1.0
_GOODBYE_SECONDS = 5.0


def chat(
    to: Annotated[
        str | None, typer.Argument(help="Whom you talk to: a handle, or a number as +49…")
    ] = None,
    *,
    as_: As,
    plain: Annotated[bool, typer.Option("--plain", help="Line by line: no screen.")] = False,
    read_receipts: Annotated[bool, typer.Option(help="Let the other see that you read.")] = True,
    gateway: Gateways = None,
    data: Data = None,
    screenshot: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Talk: all your conversations on a screen, or one line by line where there is no terminal.

    A tick says what became of your line: ✓ the mesh has it, ✓✓ it has arrived, blue ✓✓ it was read.
    """
    if screenshot is not None:
        from whimbrel_cli.screen.show import take_picture

        screenshot.write_text(asyncio.run(take_picture()))
        return
    who = person(as_, data, gateway)
    if not plain and sys.stdin.isatty() and sys.stdout.isatty():
        from whimbrel_cli.screen.show import show

        run(lambda: show(who, to, read_receipts=read_receipts))
    elif to is None:
        raise typer.BadParameter("line by line, name whom you talk to")
    else:
        peer = to
        run(lambda: _chat(who, peer, read_receipts=read_receipts))


async def _chat(who: Person, to: str, *, read_receipts: bool) -> None:
    view = choose_view(own=who.handle, other=to)
    async with who.client(read_receipts=read_receipts) as client:
        peer = await _found(client, to, view)
        talk = _Talk(client, peer, view)
        async with asyncio.TaskGroup() as tasks:
            showing = [
                tasks.create_task(talk.show_messages(), name="show-messages"),
                tasks.create_task(talk.show_ticks(), name="show-ticks"),
            ]
            await talk.send_lines(tasks)
            for task in showing:
                task.cancel()
    view.close()


async def _found(client: Client, to: str, view: View) -> bytes:
    """The account; waits until somebody registers it."""
    is_told = False
    while True:
        with contextlib.suppress(HandleUnknown, Unreachable):
            return await account_of(client, to)
        if not is_told:
            view.say(f"waiting for {to} …")
            is_told = True
        await asyncio.sleep(_POLL_SECONDS)


class _Talk:
    """One conversation on one screen."""

    def __init__(self, client: Client, peer: bytes, view: View) -> None:
        self._client = client
        self._peer = peer
        self._view = view
        # Own lines of this run that are not read yet, by seq.
        self._unread: dict[int, int] = {}
        self._receipt: Receipt | None = None

    async def show_messages(self) -> None:
        """Show what was not read before, then what arrives; shown is read."""
        read_up_to = await self._read_up_to()
        async for message in self._client.messages(conversation=self._peer):
            if message.seq <= read_up_to:
                continue
            self._view.show(message)
            await self._client.mark_read(self._peer, message.seq)

    async def _read_up_to(self) -> int:
        for conversation in await self._client.conversations():
            if conversation.conversation == self._peer:
                return conversation.read_up_to
        return 0

    async def send_lines(self, tasks: asyncio.TaskGroup) -> None:
        """Send what is typed until the input ends, then wait a little for the answers."""
        sending = []
        async for batch in batches():
            for line in filter(str.strip, batch.lines):
                number = self._view.typed(line)
                message = await self._client.send(self._peer, line)
                sending.append(tasks.create_task(self._await(message, number), name="await-tick"))
        await asyncio.wait(sending, timeout=_GOODBYE_SECONDS) if sending else None
        for task in sending:
            task.cancel()

    async def _await(self, message: OutgoingMessage, number: int) -> None:
        try:
            outcome = await self._client.accepted(message)
        except NotSent as error:
            self._view.say(f"line {number} was not sent: {error}")
            return
        assert outcome.seq is not None  # noqa: S101  # accepted
        self._unread[outcome.seq] = number
        self._view.tick(number, Tick.SENT)
        self._apply_receipt()

    async def show_ticks(self) -> None:
        """Change the ticks as receipts come."""
        async for receipt in self._client.receipts():
            if receipt.conversation == self._peer:
                self._receipt = receipt
                self._apply_receipt()

    def _apply_receipt(self) -> None:
        if self._receipt is None:
            return
        for seq, number in list(self._unread.items()):
            tick = self._receipt.tick(seq)
            self._view.tick(number, tick)
            if tick is Tick.READ:
                del self._unread[seq]
