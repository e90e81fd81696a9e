"""The files that pods and containers find, as an operator makes them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.deploy.chart import ROOT


def make_keys(directory: Path) -> Path:
    """What `scripts/keys.py keys` makes, made once for each directory."""
    keys = directory / "keys"
    if not keys.exists():
        command = [sys.executable, str(ROOT / "scripts" / "keys.py"), str(keys)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return keys


def held(path: str, directory: Path) -> Path:
    """A file as good as the one that is mounted there, by its name."""
    name = path.rpartition("/")[2]
    if name != "shards.json":
        return make_keys(directory) / name
    (directory / name).write_text('{"a": "postgresql://whimbrel@shard-a/whimbrel"}')
    return directory / name
