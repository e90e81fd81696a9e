"""What the servers of a mesh have used so far, by the kernel's own count."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from whimbrel_cli.stack.collector import TraceCollector
from whimbrel_cli.stack.mesh import Mesh

_MICROSECONDS = 1e6
_KIB = 1024


@dataclass(frozen=True)
class Sample:
    """CPU seconds of every server, and the resident memory of each main process, at a moment."""

    at: float
    cpu: Mapping[str, float]
    rss_kib: Mapping[str, float]

    def cpu_us_since(self, earlier: "Sample", messages: int) -> dict[str, float]:
        """Microseconds a message, by server."""
        return {
            name: (seconds - earlier.cpu[name]) / messages * _MICROSECONDS
            for name, seconds in self.cpu.items()
        }


class Counter:
    """Looks at the same servers again and again."""

    def __init__(self, mesh: Mesh) -> None:
        self._processes = {
            status.name: psutil.Process(status.pid)
            for status in mesh.statuses()
            if status.pid is not None and status.name != TraceCollector.name  # no part of a mesh
        }

    @property
    def names(self) -> Sequence[str]:
        """The servers that are counted."""
        return tuple(self._processes)

    def sample(self) -> Sample:
        """Look now. Takes some milliseconds."""
        at = time.monotonic()
        cpu = {name: _cpu_of_tree(process) for name, process in self._processes.items()}
        rss = {name: process.memory_info().rss / _KIB for name, process in self._processes.items()}
        return Sample(at, cpu, rss)


def _cpu_of_tree(root: psutil.Process) -> float:
    """User and system time of the process, all it has under it, and those that it has reaped."""
    times = root.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in root.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:  # reaped just now: its time counts from the next sample on
            continue
        total += times.user + times.system
    return float(total)
