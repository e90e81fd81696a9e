"""Why a stack could not be brought up, in words for the person at the terminal."""

from pathlib import Path


class StackError(Exception):
    """The stack cannot run; the message says what to do about it."""


class PortTaken(StackError):
    """A port that was asked for belongs to someone else."""

    def __init__(self, port: int, wanted_by: str, holder: str | None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(f"port {port}, wanted by {wanted_by}, is taken{by}")
        self.port = port


class DidNotStart(StackError):
    """A program ended, or never answered, before it was ready."""

    def __init__(self, name: str, why: str, log: Path) -> None:
        super().__init__(f"{name} did not start: {why}; see {log}\n{last_lines(log)}")


class InUse(StackError):
    """Another process that we did not start holds the data."""


class NotUp(StackError):
    """There is no mesh to talk to."""

    def __init__(self, data: Path) -> None:
        super().__init__(f"no mesh is up on {data}; `whimbrel up` brings one up")


class DataGone(StackError):
    """The place that holds the data of an earlier run no longer exists."""


def last_lines(log: Path, count: int = 8) -> str:
    """Return the end of a log, indented, or nothing when there is none."""
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-count:]
    return "\n".join(f"  | {line}" for line in lines)
