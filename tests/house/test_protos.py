"""The gates on proto/ bite."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_BUF = Path(sys.executable).parent / "buf"
_CHANGED = "whimbrel/scratch/v1/scratch.proto"

_PROTO = """\
syntax = "proto3";

package whimbrel.scratch.v1;

// A message.
message Scratch {
  // A text.
  string text = 1;
  // A number.
  uint64 number = 2;
}
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """The protos of the project and a released one that a test may change."""
    shutil.copy(_ROOT / "buf.yaml", tmp_path)
    shutil.copytree(_ROOT / "proto", tmp_path / "proto")
    changed = tmp_path / "proto" / _CHANGED
    changed.parent.mkdir(parents=True)
    changed.write_text(_PROTO)
    released = _buf(tmp_path, "build", "--exclude-source-info", "-o", "released.binpb")
    assert released.returncode == 0, released.stderr
    return tmp_path


def test_protos_may_grow(module) -> None:
    _change(module, "uint64 number = 2;", "uint64 number = 2;\n  // New.\n  bool new = 3;")

    assert _breaking(module).returncode == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  uint64 number = 2;", ""),
        ("uint64 number = 2;", "uint64 amount = 2;"),
        ("uint64 number = 2;", "string number = 2;"),
        ("uint64 number = 2;", "uint64 number = 3;"),
        ("message Scratch", "message Renamed"),
    ],
    ids=["removed", "renamed", "other type", "other number", "message renamed"],
)
def test_a_released_proto_may_not_change(module, before, after) -> None:
    _change(module, before, after)

    found = _breaking(module)

    assert found.returncode != 0
    assert _CHANGED in found.stdout


def test_a_field_without_a_comment_is_refused(module) -> None:
    _change(module, "  // A number.\n", "")

    found = _buf(module, "lint")

    assert found.returncode != 0
    assert "should have a non-empty comment" in found.stdout


def test_stale_generated_code_is_noticed(tmp_path: Path) -> None:
    for name in ("scripts", "proto"):
        shutil.copytree(_ROOT / name, tmp_path / name)
    shutil.copy(_ROOT / "buf.yaml", tmp_path)
    check = [tmp_path / "scripts" / "check_fresh.sh"]
    docs = [sys.executable, tmp_path / "scripts" / "docs.py"]
    gen = [tmp_path / "scripts" / "gen.sh"]
    rules = [sys.executable, tmp_path / "scripts" / "observability.py"]
    for made in (gen, docs, rules):
        assert _run(made).returncode == 0
    fresh = _run(check)
    with (tmp_path / "proto/whimbrel/error/v1/reason.proto").open("a") as proto:
        proto.write("// New.\nmessage New {}\n")

    stale = _run(check)
    _run(gen)
    stale_docs = _run(check)

    assert fresh.returncode == 0, fresh.stdout + fresh.stderr
    assert stale.returncode != 0
    assert "gen/ is stale" in stale.stderr
    assert stale_docs.returncode != 0
    assert "docs/api.md is stale" in stale_docs.stderr


def test_stale_rules_are_noticed(tmp_path: Path) -> None:
    for name in ("scripts", "proto"):
        shutil.copytree(_ROOT / name, tmp_path / name)
    shutil.copy(_ROOT / "buf.yaml", tmp_path)
    for made in ("docs", "observability"):
        assert _run([sys.executable, tmp_path / "scripts" / f"{made}.py"]).returncode == 0
    assert _run([tmp_path / "scripts" / "gen.sh"]).returncode == 0
    with (tmp_path / "helm/whimbrel/files/rules.yaml").open("a") as rules:
        rules.write("# By hand.\n")

    stale = _run([tmp_path / "scripts" / "check_fresh.sh"])

    assert stale.returncode != 0
    assert "helm/whimbrel/files is stale" in stale.stderr


def _change(module: Path, before: str, after: str) -> None:
    path = module / "proto" / _CHANGED
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def _breaking(module: Path) -> subprocess.CompletedProcess[str]:
    return _buf(module, "breaking", "--against", "released.binpb")


def _buf(module: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_BUF, *arguments], cwd=module, capture_output=True, text=True, check=False
    )


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    programs = str(Path(sys.executable).parent)
    return subprocess.run(
        command,
        env={**os.environ, "WHIMBREL_BIN": programs},
        capture_output=True,
        text=True,
        check=False,
    )
