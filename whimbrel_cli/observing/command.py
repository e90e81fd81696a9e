"""`whimbrel trace`: a message's way through the mesh on this machine, as a tree."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.tree import Tree

from mesh.ids import parse_ulid, ulid_text
from whimbrel_cli.observing.spans import MESSAGE_ID, Said, Step, read_spans, tree_of, way_of
from whimbrel_cli.person import Data
from whimbrel_cli.stack.environment import observed_folder
from whimbrel_cli.up import DEFAULT_DATA


class Untraced(Exception):
    """There is no trace to show; the text says why."""


def trace(
    message_id: Annotated[str, typer.Argument(help="As `whimbrel send --json` tells it.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The tree as JSON.")] = False,
    data: Data = None,
) -> None:
    """Show where a message has been, and when, from its send to its receipt."""
    try:
        steps = steps_of(data or DEFAULT_DATA, message_id)
    except Untraced as why:
        print(why, file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps([step.as_json() for step in steps], indent=2))
        return
    began = steps[0].said.began
    tree = Tree(f"message {message_id.upper()}")
    for step in steps:
        _grow(tree, step, began)
    Console().print(tree)


def steps_of(data: Path, message_id: str) -> list[Step]:
    """The message's way. Raises Untraced."""
    try:
        name = ulid_text(parse_ulid(message_id))
    except ValueError:
        raise Untraced(f"{message_id!r} is not a message id: 26 letters and digits") from None
    spans = read_spans(observed_folder(data))
    if not spans:
        raise Untraced(
            f"nothing was traced in {data}: bring the mesh up with `whimbrel up --observe`"
        )
    way = way_of(spans, name)
    if not way:
        raise Untraced(
            f"message {name} was not sampled, or is older than what is kept: it was sent to a mesh"
            " that was up without --observe, or has not been accepted yet"
        )
    return tree_of(way)


def _grow(tree: Tree, step: Step, began: int) -> None:
    under = tree.add(_line(step.said, began, waited=step.waited), highlight=False)
    for one in step.next:
        _grow(under, one, began)


def _line(said: Said, began: int, *, waited: bool) -> str:
    facts = " ".join(
        f"{name}={value}" for name, value in said.attributes.items() if name != MESSAGE_ID
    )
    after = "[yellow]later, by a link[/] " if waited else ""
    return (
        f"{after}[bold]{said.name}[/] {said.service} [dim]{said.instance[-6:]}[/]"
        f" +{(said.began - began) / 1e6:.1f} ms, {(said.ended - said.began) / 1e6:.1f} ms"
        f" [dim]{facts}[/]"
    )
