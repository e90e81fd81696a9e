"""What is made of files, and made again when they have changed.

Whatever changes them puts new files in the old ones' place. Files that are not good are left alone,
said once and counted, and what was made before goes on being used.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from mesh.metrics import CERTIFICATES_REFUSED
from mesh.telemetry import OFF, Telemetry

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Renewing(Generic[T]):
    """What was made of certificates' files when they last were good."""

    def __init__(
        self, files: Sequence[Path], make: Callable[[], T], *, telemetry: Telemetry = OFF
    ) -> None:
        """`make` raises OSError or ValueError for files that are not good, here too."""
        self._files = files
        self._make = make
        self._refused = telemetry.counter(CERTIFICATES_REFUSED)
        self._seen = self._stamps()  # before they are read: what changes meanwhile is seen later
        self._made = make()

    def now(self) -> T:
        """Look at the files, and make it anew if they have changed and are good."""
        seen = self._stamps()
        if seen != self._seen:
            self._seen = seen
            self._renew()
        return self._made

    def _renew(self) -> None:
        why = ""
        try:
            self._made = self._make()
        except (OSError, ValueError) as error:
            why = str(error)  # quotes nothing of the files, as a traceback might
        files = [str(path) for path in self._files]
        if why:
            self._refused.add(1)
            log.error("certificates are not good: going on with the old ones", why=why, files=files)
        else:
            log.info("certificates renewed", files=files)

    def _stamps(self) -> list[tuple[int, int, int]]:
        """What differs when a file was changed, or another one put in its place."""
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        about = path.stat()
    except OSError:
        return (0, 0, 0)
    return (about.st_ino, about.st_mtime_ns, about.st_size)
