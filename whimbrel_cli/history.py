"""How much of the past a new device gets, and how a terminal shows that it moves."""

import sys
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from whimbrel_client import Client

ALL, NONE = "all", "none"


def span_of(text: str) -> timedelta:
    """`all`, `none`, or a number of days as in `30d`."""
    if text in {ALL, NONE}:
        return timedelta.max if text == ALL else timedelta(0)
    days = text.removesuffix("d")
    if days == text or not days.isascii() or not days.isdigit() or not 1 <= int(days) <= 36500:
        raise typer.BadParameter(f"{text!r}; allowed: {ALL}, {NONE}, or days, as in 30d")
    return timedelta(days=int(days))


History = Annotated[
    timedelta,
    typer.Option(
        parser=span_of,
        metavar="all|30d|none",
        help="What it gets of what was said before: all, so many days, or nothing.",
    ),
]


async def show_moving(client: Client) -> None:
    """Show how the history comes to this device, until all of it is here."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    moved = 0
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("history", total=None)
        async for progress in client.history.progress():
            moved = progress.moved
            bar.update(task, completed=moved, total=progress.total or None)
    if moved:
        print(f"{moved:,} messages of before have come")
