"""`whimbrel codes`: the one-time codes that the mesh on this machine would send to phones."""

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from whimbrel_cli.stack.environment import codes_file
from whimbrel_cli.up import DEFAULT_DATA


@dataclass(frozen=True)
class SentCode:
    """A code as it would have reached the phone."""

    phone_number: str
    code: str
    expires_at: str  # ISO 8601


def codes(
    data: Annotated[Path, typer.Option(help="The data directory of the mesh.")] = DEFAULT_DATA,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the codes that still count, the newest last."""
    found = sent_codes(data)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    elif found:
        _print(found, Console())
    else:
        print("no code counts now: ask for one by registering with a number", file=sys.stderr)


def sent_codes(data: Path) -> list[SentCode]:
    """The newest code of each number, unless it has expired; in the order of their sending."""
    path = codes_file(data)
    if not path.exists():
        return []
    newest: dict[str, SentCode] = {}
    for line in path.read_text().splitlines():
        sent = SentCode(**json.loads(line))
        newest.pop(sent.phone_number, None)
        newest[sent.phone_number] = sent
    now = datetime.now(UTC)
    return [one for one in newest.values() if datetime.fromisoformat(one.expires_at) > now]


def _print(found: list[SentCode], console: Console) -> None:
    table = Table("number", "code", "counts until", box=None, pad_edge=False)
    for one in found:
        until = datetime.fromisoformat(one.expires_at).astimezone()
        table.add_row(one.phone_number, one.code, f"{until:%H:%M:%S}")
    console.print(table)
