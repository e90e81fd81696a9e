"""File names that others chose, made harmless."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOST_BYTES = 200
_NAMELESS = "file"
_MOST_TRIES = 10_000
_FORBIDDEN = frozenset('<>:"|?*')


def safe_name(name: str) -> str:
    """The last part of the name, without what steers a terminal or means something to a system."""
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join(one if _is_harmless(one) else "_" for one in last)
    # Neither hidden, nor with an end that some systems drop.
    kept = kept.strip(". ")
    stem, dot, suffix = kept.rpartition(".")
    if not dot:
        stem, suffix = kept, ""
    suffix = _cut(suffix, 16)
    stem = _cut(stem, _MOST_BYTES - len(suffix.encode()))
    return f"{stem}{dot}{suffix}" or _NAMELESS


def put_under_free_name(draft: Path, folder: Path, name: str) -> Path:
    """Give the draft, which is on the disk, a safe name in the folder; no file is replaced."""
    for candidate in _candidates(safe_name(name)):
        path = folder / candidate
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            continue
        draft.unlink()
        _keep_names(folder)
        return path
    raise FileExistsError(f"{folder} has {_MOST_TRIES} files of this name")


def _candidates(name: str) -> Iterator[str]:
    yield name
    path = PurePosixPath(name)
    for number in range(1, _MOST_TRIES):
        yield f"{path.stem} ({number}){path.suffix}"


def _is_harmless(one: str) -> bool:
    # Neither controls nor formats, such as those that turn the direction of writing.
    return one.isprintable() and one not in _FORBIDDEN


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")


def _keep_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
