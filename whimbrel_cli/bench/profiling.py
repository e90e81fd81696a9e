"""Where one process spends its time while a workload runs, by sampling it with py-spy."""

import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from whimbrel_cli.stack.errors import StackError

_RATE = 200
_SHOWN = 30


@dataclass(frozen=True)
class Target:
    """What is sampled; nothing without a name."""

    process: str
    native: bool = False


class Sampler:
    """Samples a process from `start` to `stop`."""

    def __init__(self, into: Path, *, native: bool) -> None:
        self._into = into
        self._native = ["--native"] if native else []
        # Beside the interpreter, where pip puts it; that need not be on the path.
        beside = Path(sys.executable).parent / "py-spy"
        self._program = str(beside) if beside.exists() else shutil.which("py-spy")
        self._running: subprocess.Popen[bytes] | None = None
        if self._program is None:
            raise StackError("--profile needs py-spy: pip install py-spy")

    def start(self, pid: int) -> None:
        """Begin; it takes until told to stop."""
        assert self._program is not None  # noqa: S101  looked up at the start
        argv = [self._program, "record", "--pid", str(pid), "--rate", str(_RATE), *self._native]
        argv += ["--format", "raw", "--duration", "unlimited", "--output", str(self._into)]
        self._running = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """End, and wait for the file."""
        if self._running is not None:
            self._running.send_signal(signal.SIGINT)
            self._running.wait()
            self._running = None


def print_profile(stacks: Path, console: Console) -> None:
    """The functions in which the samples were taken, and those that were on the way there."""
    lines = stacks.read_text().splitlines()
    own, under = _counted(lines)
    total = sum(own.values()) or 1
    table = Table("own %", "with all under it %", "function", box=None, pad_edge=False)
    for function, samples in own.most_common(_SHOWN):
        share, below = samples / total, under[function] / total
        table.add_row(f"{share:.1%}", f"{below:.1%}", function)
    console.print(table)


def _counted(lines: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    own: Counter[str] = Counter()
    under: Counter[str] = Counter()
    for line in lines:
        stack, _, samples = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] or frame for frame in stack.split(";")]
        own[frames[-1]] += int(samples)
        for frame in set(frames):
            under[frame] += int(samples)
    return own, under
