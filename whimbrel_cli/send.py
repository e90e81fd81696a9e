"""`whimbrel send`: a message, a file, or every line of standard input, pipelined and in order."""

import asyncio
import json
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from whimbrel_cli.files import send_file
from whimbrel_cli.groups import group_named
from whimbrel_cli.person import As, Data, Find, Gateways, Person, account_of, person, run
from whimbrel_cli.stdin import batches
from whimbrel_client import Client, OutgoingMessage, Unreachable

# Lines that are queued and not yet accepted; reading waits while there are more.
_MOST_UNSETTLED = 4000

To = Annotated[
    str, typer.Argument(help="Whom it is for: a handle, a number as +49…, or --group and its name.")
]
Text = Annotated[
    str | None, typer.Argument(help="The message; without it, every line of standard input.")
]


def send(
    to: To,
    text: Text = None,
    *,
    as_: As,
    is_group: Annotated[
        bool, typer.Option("--group", help="It is for a group: TO is its name or id.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option(help="Send this file; TEXT goes with it.", metavar="PATH")
    ] = None,
    wait: Annotated[float, typer.Option(help="Give up after so long without progress.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Send a message, a file, or every line of standard input; wait until the mesh has it all.

    What was queued and is not accepted stays queued, and goes out with the next command. A file
    that was interrupted goes on with the next command for the same file.
    """
    who = person(as_, data, gateway)
    find: Find = group_named if is_group else account_of
    began = time.monotonic()
    if file is not None:
        accepted = 1
        run(lambda: send_file(who, to, file, find=find, caption=text or "", wait=wait))
    else:
        accepted = run(lambda: _send(who, to, text, find=find, wait=wait))
    seconds = time.monotonic() - began
    if as_json:
        print(json.dumps({"accepted": accepted, "seconds": round(seconds, 3)}))
    elif text is None and file is None:
        print(f"{accepted:,} messages accepted in {seconds:.1f} s", file=sys.stderr)


async def _send(who: Person, to: str, text: str | None, *, find: Find, wait: float) -> int:
    async with who.client() as client:
        peer = await find(client, to)
        with _progress(is_shown=text is None) as progress:
            pipeline = _Pipeline(client, peer, progress, wait=wait)
            if text is not None:
                await pipeline.queue([text])
            else:
                async for batch in batches():
                    await pipeline.queue(batch.lines, size=batch.size)
            await pipeline.settle(down_to=0)
        return pipeline.accepted


class _Pipeline:
    """Queues in batches, and waits in order for what was queued."""

    def __init__(self, client: Client, to: bytes, progress: Progress, *, wait: float) -> None:
        self._client = client
        self._to = to
        self._wait = wait
        self._progress = progress
        self._bar = progress.add_task("", total=_size_of_stdin(), lines=0)
        self._unsettled: deque[tuple[OutgoingMessage, float]] = deque()
        self.accepted = 0

    async def queue(self, lines: Sequence[str], *, size: int = 0) -> None:
        """Queue the lines; return when there is room for more."""
        messages = await self._client.send_all(self._to, lines)
        share = size / len(lines)
        self._unsettled.extend((message, share) for message in messages)
        await self.settle(down_to=_MOST_UNSETTLED)

    async def settle(self, *, down_to: int) -> None:
        """Wait until at most so many are not accepted. Raises NotSent, Unreachable."""
        unsettled, size = self._unsettled, 0.0
        while unsettled and (len(unsettled) > down_to or unsettled[0][0].outcome is not None):
            message, share = unsettled.popleft()
            await self._accepted(message)
            self.accepted += 1
            size += share
            if self.accepted % 500 == 0:
                self._show(size)
                size = 0.0
        self._show(size)

    async def _accepted(self, message: OutgoingMessage) -> None:
        try:
            async with asyncio.timeout(None if message.outcome else self._wait):
                await self._client.accepted(message)
        except TimeoutError:
            left = len(self._unsettled) + 1
            raise Unreachable(
                f"no answer for {self._wait:g} s; {left:,} messages stay queued and go out with"
                " the next command"
            ) from None

    def _show(self, size: float) -> None:
        self._progress.update(self._bar, advance=size, lines=self.accepted)


def _progress(*, is_shown: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[lines]:,} accepted"),
        TimeElapsedColumn(),
        console=console,
        disable=not (is_shown and console.is_terminal),
    )


def _size_of_stdin() -> int | None:
    """In bytes, if it is a file; a pipe has no known end."""
    try:
        status = os.fstat(0)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
