import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parents[2]
_LOCK = (_ROOT / "requirements.lock").read_text()
_PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", _LOCK, re.MULTILINE))


def test_the_lock_holds_everything_that_the_project_asks_for() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [Requirement(text) for group in groups for text in group]

    missing = [
        str(one)
        for one in wanted
        if one.name != "whimbrel"
        and not one.specifier.contains(_PINNED.get(canonicalize_name(one.name), "0"))
    ]

    assert missing == []


def test_the_lock_has_a_hash_for_each_package_and_no_address() -> None:
    entries = re.split(r"\n(?=[a-z0-9-]+==)", _LOCK.strip())

    assert len(entries) == len(_PINNED)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|file:|--index|--find-links", _LOCK)
