"""One child process: its log, its readiness, its end. It knows no particular server."""

import asyncio
import contextlib
import enum
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whimbrel_cli.stack.errors import DidNotStart

_POLL_SECONDS = 0.02
_READY_SECONDS = 60.0  # a busy machine takes its time
_LAUNCHER = Path(__file__).with_name("launch.py")

Probe = Callable[[], Awaitable[bool]]


class State(enum.Enum):
    """Where a program is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"  # by us
    DEAD = "dead"


@dataclass(frozen=True)
class Owner:
    """The unprivileged user that a program runs as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """What to run, and how it likes to be ended."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(
        default_factory=dict, repr=False
    )  # added to ours; may hold secrets
    owner: Owner | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 20.0
    orphan_signal: signal.Signals = signal.SIGKILL  # sent by the kernel when we die


class Program:
    """A command that is running, or has ended."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._answered = False
        self._unwanted = False

    @property
    def name(self) -> str:
        return self._command.name

    @property
    def log(self) -> Path:
        return self._command.log

    @property
    def pid(self) -> int:
        """The process id; of the last run if it has ended."""
        return self._started.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._started.poll()

    @property
    def state(self) -> State:
        if self._child is None:
            return State.WAITING
        if not self.is_running:
            return State.STOPPED if self._unwanted else State.DEAD
        return State.READY if self._answered else State.STARTING

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the process; it is not ready yet.

        Call it in the main thread: it is the end of the thread that the kernel tells the child of.
        """
        command = self._command
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with command.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*_launcher(command), *command.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **command.env},
                # A terminal's Ctrl-C is for us: we end the children in order.
                start_new_session=True,
            )

    async def until_ready(self, probe: Probe, *, seconds: float = _READY_SECONDS) -> None:
        """Wait for the probe to say yes; raise DidNotStart if the process ends or time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.is_running:
                    if await probe():
                        self._answered = True
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        if self.is_running:
            raise DidNotStart(self.name, f"not ready after {seconds:.0f} s", self.log)
        raise DidNotStart(self.name, f"it ended with exit code {self.exit_code}", self.log)

    async def stop(self) -> None:
        """Ask the process to end, and end it by force when it does not."""
        self._unwanted = True
        self.kill(self._command.stop_signal)
        try:
            async with asyncio.timeout(self._command.stop_seconds):
                await self.ended()
        except TimeoutError:
            self.kill(signal.SIGKILL)
            await self.ended()

    def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Send the process a signal; harmless when it has ended."""
        if self._child is not None:
            self._child.send_signal(with_signal)

    async def ended(self) -> None:
        """Wait until the process is gone."""
        while self.is_running:  # noqa: ASYNC110  (a process sets no event)
            await asyncio.sleep(_POLL_SECONDS)

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._child


def _launcher(command: Command) -> list[str]:
    """What runs first in the child, so that it ends when we do, however we end."""
    owner = command.owner or Owner(-1, -1)
    numbers = (os.getpid(), int(command.orphan_signal), owner.uid, owner.gid)
    # Isolated and without site-packages: it is there in a few milliseconds.
    return [sys.executable, "-I", "-S", str(_LAUNCHER), *map(str, numbers)]
