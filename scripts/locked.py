"""Prints the part of requirements.lock that something needs, hashes and all, for pip.

usage: scripts/locked.py NAME...    NAME is a package, or an extra of this project, as `[server]`

Needs nothing but Python: it runs before anything is installed. pip refuses what is missing here.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_ENTRY = re.compile(r"\n(?=[a-z0-9-]+==)")
_PARENT = re.compile(r"^    #(?: via)?  *([A-Za-z0-9._-]+)", re.MULTILINE)


def needed(lock: str, names: Iterable[str]) -> str:
    """The lock's entries of these packages and of all that they need. Raises KeyError."""
    entries = {entry.partition("==")[0]: entry.rstrip() for entry in _ENTRY.split(lock)}
    children: dict[str, list[str]] = {}
    for name, entry in entries.items():
        for parent in _PARENT.findall(entry):
            children.setdefault(_canonical(parent), []).append(name)
    found: dict[str, str] = {}
    waiting = [_canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = entries[name]
            waiting += children.get(name, [])
    return "\n".join(found[name] for name in sorted(found))


def names_of(extra: str) -> list[str]:
    """The packages that the project itself asks for, with one of its extras."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
    return [re.split(r"[^A-Za-z0-9._-]", one)[0] for one in wanted]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    asked = [
        name
        for argument in sys.argv[1:]
        for name in (names_of(argument[1:-1]) if argument.startswith("[") else [argument])
    ]
    print(needed((_ROOT / "requirements.lock").read_text(), asked))
