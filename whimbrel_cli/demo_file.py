"""The demo's file: goes through the object store sealed, and arrives as it was, byte by byte."""

import asyncio
import hashlib
import os
import time
from pathlib import Path

from rich.console import Console

from whimbrel_client import Client, Message

_BYTES = 32 * 1024 * 1024
_SECONDS = 60.0


async def show_file(sender: Client, reader: Client, folder: Path, console: Console) -> bool:
    """Send a file and save it; tells whether it is the same."""
    path = folder / "holiday.film"
    path.write_bytes(os.urandom(_BYTES))
    began = time.monotonic()
    async with asyncio.timeout(_SECONDS):
        await sender.files.send(reader.handle, path, caption="look")
        saved = await reader.files.save(await _file_of(reader), folder / "saved")
    seconds = time.monotonic() - began
    is_same = _digest(saved) == _digest(path)
    state = "arrives intact" if is_same else "[red]arrives changed[/]"
    console.print(
        f"{sender.handle} sends {reader.handle} a file of {_BYTES >> 20} MiB, which {state} after"
        f" {seconds:.1f} s: sealed, in the object store, and opened again."
    )
    return is_same


async def _file_of(reader: Client) -> Message:
    async for message in reader.messages():
        if message.kind == "media":
            return message
    raise AssertionError("messages do not end")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
