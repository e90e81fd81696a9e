"""`whimbrel pushes`: what the simulated push providers of the mesh on this machine have taken."""

import asyncio
import hashlib
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from whimbrel_cli.person import Data, person, run
from whimbrel_cli.providers.arrivals import Arrival, short
from whimbrel_cli.stack.environment import pushes_file
from whimbrel_cli.up import DEFAULT_DATA

_LOOK_SECONDS = 0.1


def pushes(
    *,
    as_: Annotated[
        str | None,
        typer.Option("--as", help="First give this person's device a token.", metavar="NAME"),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    data: Data = None,
) -> None:
    """Show the pushes that have arrived, the newest last: that there is something, and no more."""
    place = data or DEFAULT_DATA
    if as_ is not None:
        run(lambda: _register(as_, place))
    found = arrived(place)
    if as_json or follow:
        for arrival in found:
            _print_line(arrival, as_json=as_json)
    elif found:
        _print(found, Console())
    else:
        print("nothing was pushed yet: is anybody away who has a token?", file=sys.stderr)
    if follow:
        run(lambda: _follow(place, len(found), as_json=as_json))


def arrived(data: Path) -> list[Arrival]:
    """All pushes that were taken, in their order."""
    path = pushes_file(data)
    lines = path.read_text().splitlines() if path.exists() else []
    return [Arrival(**json.loads(line)) for line in lines]


def simulated_token(handle: str) -> bytes:
    """The token that a phone of this name would get."""
    return hashlib.sha256(b"whimbrel simulated phone\0" + handle.encode()).digest()


async def _register(handle: str, data: Path) -> None:
    token = simulated_token(handle)
    async with person(handle, data, None).client() as client:
        await client.push.by_apns(token)
    print(f"{handle} is woken as device {short(token.hex())}", file=sys.stderr)


async def _follow(data: Path, seen: int, *, as_json: bool) -> None:
    while True:
        for arrival in arrived(data)[seen:]:
            _print_line(arrival, as_json=as_json)
            seen += 1
        await asyncio.sleep(_LOOK_SECONDS)


def _print_line(arrival: Arrival, *, as_json: bool) -> None:
    if as_json:
        fields = ("at", "provider", "device", "is_urgent", "payload")
        print(json.dumps({name: getattr(arrival, name) for name in fields}), flush=True)
    else:
        print(*_columns(arrival), flush=True)


def _print(found: list[Arrival], console: Console) -> None:
    table = Table("at", "provider", "device", "", "payload", box=None, pad_edge=False)
    for arrival in found:
        table.add_row(*_columns(arrival))
    console.print(table)


def _columns(arrival: Arrival) -> tuple[str, ...]:
    at = datetime.fromisoformat(arrival.at).astimezone()
    kind = "rings" if arrival.is_urgent else "quiet"
    return f"{at:%H:%M:%S}", arrival.provider, arrival.device, kind, arrival.payload
