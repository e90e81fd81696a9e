"""The files that pods and containers find, as an operator makes them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.deploy.chart import ROOT

# Where the chart mounts them.
MOUNTED = "/run/secrets/whimbrel/"
# What a Secret may hold, where not any text will do.
_HELD = {"cdn_key": "00" * 32}
# The files of a Secret of cert-manager, and the same ones as scripts/keys.py names them.
_CERT_MANAGER = {"tls.crt": "{}.pem", "tls.key": "{}-key.pem", "ca.crt": "ca.pem"}


def as_in_a_pod(service: str, variable: dict[str, Any], directory: Path) -> str:
    """The value of a variable of a pod's, with files as good as those it names."""
    value: str | None = variable.get("value")
    if value is None:
        setting = variable["name"].removeprefix(f"WHIMBREL_{service.upper()}_").lower()
        return _HELD.get(setting, "held-by-a-secret")
    if value.startswith(MOUNTED):
        name = value.rpartition("/")[2]
        return str(held(_CERT_MANAGER.get(name, name).format(service), directory))
    return value.replace("$(POD_IP)", "192.0.2.1")


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
