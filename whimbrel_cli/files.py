"""Files at the terminal: sent with a bar that shows how far, saved as they arrive."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from whimbrel_cli.person import Find, Person, account_of
from whimbrel_cli.wording import printable
from whimbrel_client import Client, ClientError, Message, Unreachable
from whimbrel_client.media.sending import OnProgress


async def send_file(
    who: Person, to: str, path: Path, *, find: Find = account_of, caption: str, wait: float
) -> None:
    """Send it, and wait until the mesh has the message. Raises ClientError, OSError."""
    async with who.client() as client:
        peer = await find(client, to)
        with bar(path.name) as on_progress:
            try:
                message = await client.files.send(
                    peer, path, caption=caption, on_progress=on_progress
                )
            except OSError as error:
                raise ClientError(f"cannot read {path}: {error.strerror}") from None
        try:
            async with asyncio.timeout(wait):
                await client.accepted(message)
        except TimeoutError:
            raise Unreachable(
                f"no answer for {wait:g} s; the message stays queued and goes out with the next"
                " command"
            ) from None


async def save_file(client: Client, message: Message, folder: Path) -> Path | None:
    """Save the message's file, if it has one, under a name that is free. Raises ClientError."""
    if message.kind != "media" or message.content is None:
        return None
    with bar(printable(message.content.media.name)) as on_progress:
        try:
            return await client.files.save(message, folder, on_progress=on_progress)
        except OSError as error:
            raise ClientError(f"cannot write into {folder}: {error.strerror}") from None


@contextmanager
def bar(name: str) -> Iterator[OnProgress]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}", markup=False)
    with Progress(text, *columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
