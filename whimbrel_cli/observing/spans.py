"""The spans that the collector has written, and those that are one message's way."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

MESSAGE_ID = "message.id"


class Link(NamedTuple):
    """A span of another trace that led to this one."""

    trace: str
    span: str


@dataclass(frozen=True)
class Said:
    """One span, as it stands in a line of the file. Times are nanoseconds since 1970."""

    trace: str
    span: str
    parent: str
    name: str
    service: str
    instance: str
    began: int
    ended: int
    attributes: dict[str, str | int]
    links: Sequence[Link]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def traces_file(folder: Path) -> Path:
    """Where spans are written, a line each."""
    return folder / "traces.jsonl"


def read_spans(folder: Path) -> list[Said]:
    """All that was written, the older file first; a line that is just being written is left out."""
    path = traces_file(folder)
    return [*_read(path.with_suffix(".old.jsonl")), *_read(path)]


def _read(path: Path) -> Iterator[Said]:
    if not path.exists():
        return
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                said = json.loads(line)
                said["links"] = [Link(*link) for link in said["links"]]
                yield Said(**said)


def way_of(spans: Sequence[Said], message_id: str) -> list[Said]:
    """The spans that led to those that name the message, and all that these led to.

    A batch links to the message, too, and is left out: its spans say how large it was.
    """
    by_place = {(span.trace, span.span): span for span in spans}
    below: dict[tuple[str, str], list[Said]] = {}
    for span in spans:
        below.setdefault((span.trace, span.parent), []).append(span)
    found = [span for span in spans if span.attributes.get(MESSAGE_ID) == message_id]
    before: dict[tuple[str, str], Said] = {}
    for span in found:
        above = by_place.get((span.trace, span.parent))
        while above is not None:
            before[above.trace, above.span] = above
            above = by_place.get((above.trace, above.parent))
    after: dict[tuple[str, str], Said] = {}
    while found:
        span = found.pop()
        place = (span.trace, span.span)
        if place not in after:
            after[place] = span
            found += below.get(place, ())
    return sorted((before | after).values(), key=lambda span: span.began)


@dataclass(frozen=True)
class Step:
    """A span and what it led to; `waited` is true if it came after a gap, by a link."""

    said: Said
    waited: bool
    next: list["Step"]

    def as_json(self) -> dict[str, Any]:
        return {
            **self.said.as_json(),
            "waited": self.waited,
            "next": [step.as_json() for step in self.next],
        }


def tree_of(way: Sequence[Said]) -> list[Step]:
    """The way as a tree: each span under its parent, else under the one it links to."""
    steps = {
        (said.trace, said.span): Step(said, not said.parent and bool(said.links), [])
        for said in way
    }
    roots: list[Step] = []
    for step in steps.values():
        said = step.said
        above = [(said.trace, said.parent), *said.links] if said.parent else list(said.links)
        found = next((steps[place] for place in above if place in steps), None)
        (roots if found is None else found.next).append(step)
    return roots
