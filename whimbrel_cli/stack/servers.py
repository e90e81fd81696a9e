"""What all servers of a mesh have in common: a port, a process, starting again after a kill."""

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from whimbrel_cli.stack.errors import DidNotStart
from whimbrel_cli.stack.ports import LOOPBACK, free_port, is_free, require_free
from whimbrel_cli.stack.programs import Command, Program, State

_PORT_TRIES = 3


@dataclass(frozen=True)
class Status:
    """What a person may want to know of a server; it holds no secret."""

    name: str
    state: State
    where: str = ""
    pid: int | None = None
    exit_code: int | None = None
    log: Path | None = None


class Recipe(Protocol):
    """How one kind of server is made ready, run and asked whether it answers."""

    @property
    def name(self) -> str: ...

    async def prepare(self) -> None:
        """Lay out the data directory; leave an existing one as it is."""

    def command(self, port: int, log: Path) -> Command:
        """Return what runs the server on the port."""

    async def answers(self, port: int) -> bool:
        """Tell whether the server on the port serves requests now."""

    def address(self, port: int) -> str:
        """Return what clients need to reach the server on the port."""


class Startable(Protocol):
    """Whatever can be brought up and down with others."""

    @property
    def name(self) -> str: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def start_all(servers: Iterable[Startable]) -> None:
    """Start all at once; raise what the first that fails says."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for server in servers:
                tasks.create_task(server.start(), name=f"start-{server.name}")
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def stop_all(servers: Iterable[Startable]) -> None:
    """Stop all at once."""
    async with asyncio.TaskGroup() as tasks:
        for server in servers:
            tasks.create_task(server.stop(), name=f"stop-{server.name}")


class Server:
    """A server that is ours to start and stop; it keeps its port over restarts."""

    def __init__(self, recipe: Recipe, *, log: Path, port: int | None = None) -> None:
        self._recipe = recipe
        self._log = log
        self._port: int | None = port
        self._program: Program | None = None

    @property
    def name(self) -> str:
        return self._recipe.name

    @property
    def port(self) -> int:
        if self._port is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._port

    @property
    def address(self) -> str:
        """Where clients find it; it may hold a password."""
        return self._recipe.address(self.port)

    @property
    def program(self) -> Program:
        if self._program is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._program

    def status(self) -> Status:
        program, port = self._program, self._port
        where = f"{LOOPBACK}:{port}" if port else ""
        if program is None:
            return Status(self.name, State.WAITING, where)
        return Status(self.name, program.state, where, program.pid, program.exit_code, program.log)

    async def start(self) -> None:
        """Start the server and wait until it answers; again on the same port after a kill."""
        await self._recipe.prepare()
        if self._port is not None:
            require_free(self._port, self.name)
            return await self._run_on(self._port)
        for tries_left in reversed(range(_PORT_TRIES)):
            port = free_port()
            try:
                await self._run_on(port)
            except DidNotStart as failure:
                # Someone may have taken a port between our look and the server's bind, and may be
                # gone again by now: two that choose the same one at once both give it up.
                lost_a_port = not is_free(port) or "already in use" in str(failure)
                if not lost_a_port or not tries_left:
                    raise
            else:
                self._port = port
                return None
        return None

    async def stop(self) -> None:
        if self._program is not None:
            await self._program.stop()

    async def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """End the server without a chance to tidy up, as a crash would."""
        self.program.kill(with_signal)
        await self.program.ended()

    async def _run_on(self, port: int) -> None:
        program = Program(self._recipe.command(port, self._log))
        program.start()
        self._program = program
        try:
            await program.until_ready(lambda: self._recipe.answers(port))
        except BaseException:
            await program.stop()
            raise
