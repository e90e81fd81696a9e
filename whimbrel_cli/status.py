"""`whimbrel status`: the instances, the shards and the sessions of the mesh that is up."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mesh import logs
from whimbrel_cli.stack.description import find_mesh
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.survey import Survey, survey
from whimbrel_cli.up import DEFAULT_DATA

_NO_ANSWER = "[red]no answer[/]"


def status(
    data: Annotated[Path, typer.Option(help="The data directory of the mesh.")] = DEFAULT_DATA,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the mesh that is up: its instances, its shards and their slots, its sessions."""
    logs.configure(level="ERROR", service="status", instance="")
    try:
        seen = asyncio.run(survey(find_mesh(data)))
    except StackError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(asdict(seen), indent=2))
    else:
        _print(seen, Console())


def _print(seen: Survey, console: Console) -> None:
    instances = Table("instance", "service", "address", "sessions", box=None, pad_edge=False)
    for one in seen.instances or []:
        is_gateway = one.service == "gateway"
        sessions = str((seen.sessions or {}).get(one.instance_id, 0)) if is_gateway else ""
        instances.add_row(one.instance_id, one.service, one.address, sessions)
    console.print(instances)
    if seen.instances is None:
        console.print("instances: etcd gives", _NO_ANSWER)

    shards = Table("shard", "slots", box=None, pad_edge=False)
    for shard, slots in seen.slots.items():
        shards.add_row(shard, _NO_ANSWER if slots is None else _counts(slots))
    console.print(shards)
    total = _NO_ANSWER if seen.sessions is None else sum(seen.sessions.values())
    console.print(f"sessions: {total}")


def _counts(slots: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in slots.items()) or "none"
