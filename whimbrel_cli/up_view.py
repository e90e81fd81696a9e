"""How `whimbrel up` shows its processes: a live table on a terminal, else a line a change."""

import asyncio
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.programs import State
from whimbrel_cli.stack.servers import Status

_LOOK_SECONDS = 0.2

_COLOURS = {
    State.WAITING: "dim",
    State.STARTING: "yellow",
    State.READY: "green",
    State.STOPPED: "dim",
    State.DEAD: "bold red",
}


class View(Protocol):
    """Shows a mesh to a person, until cancelled."""

    async def show(self, mesh: Mesh) -> None:
        """Follow the processes of the mesh."""

    def greet(self, mesh: Mesh) -> None:
        """Say that all is ready."""


def choose_view(console: Console, *, greeting: str) -> View:
    """A live view where there is a terminal, a plain one where there is a file or a pipe."""
    view = LiveView if console.is_terminal else PlainView
    return view(console, greeting)


class LiveView:
    """One line a process, always as it is now."""

    def __init__(self, console: Console, greeting: str) -> None:
        self._console = console
        self._greeting = greeting

    async def show(self, mesh: Mesh) -> None:
        shown: list[Status] = []
        with Live(console=self._console, auto_refresh=False) as live:
            while True:
                statuses = mesh.statuses()
                if statuses != shown:
                    live.update(_table(statuses), refresh=True)
                shown = statuses
                await asyncio.sleep(_LOOK_SECONDS)

    def greet(self, mesh: Mesh) -> None:  # noqa: ARG002  (the table shows it)
        self._console.print(self._greeting, highlight=False)


class PlainView:
    """One line a change."""

    def __init__(self, console: Console, greeting: str) -> None:
        self._console = console
        self._greeting = greeting
        self._shown: dict[str, Status] = {}

    async def show(self, mesh: Mesh) -> None:
        while True:
            self._show_changes(mesh)
            await asyncio.sleep(_LOOK_SECONDS)

    def greet(self, mesh: Mesh) -> None:
        self._show_changes(mesh)
        self._print(self._greeting)

    def _show_changes(self, mesh: Mesh) -> None:
        for status in mesh.statuses():
            if self._shown.get(status.name) != status and status.state is not State.WAITING:
                self._print(f"{status.name:<12} {in_words(status)}  {status.where}")
            self._shown[status.name] = status

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def in_words(status: Status) -> str:
    """The state, and of a dead process why and where to read on."""
    words = str(status.state.value)
    if status.state is State.DEAD:
        return f"{words}, exit code {status.exit_code}, see {status.log}"
    return f"{words}, pid {status.pid}" if status.pid else words


def _table(statuses: list[Status]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("process", "address", "state"):
        table.add_column(heading, no_wrap=heading != "state")
    for status in statuses:
        table.add_row(status.name, status.where, in_words(status), style=_COLOURS[status.state])
    return table
