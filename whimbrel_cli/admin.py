"""`whimbrel admin`: what operators see and set while the mesh runs.

Whoever may write into the mesh's etcd may set limits: no other credential is asked for. Reports are
read by the certificate of an operator.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from mesh import logs
from mesh.discovery import Discovery
from mesh.errors import Unavailable
from mesh.limits import Limit, read_overrides
from mesh.store_tls import StoreTls, demand_good
from svc_gateway.limits import DEFAULTS, OVERRIDES
from whimbrel_cli.admin_reports import reports
from whimbrel_cli.stack.description import find_mesh
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.up import DEFAULT_DATA

_SECONDS = 5

admin = typer.Typer(no_args_is_help=True, help="See and set what only operators may.")
limits = typer.Typer(help="Show the limits; set one, or take it back.")
admin.add_typer(limits, name="limits")
admin.command()(reports)

Data = Annotated[Path, typer.Option(help="The data directory of the mesh.")]
Etcd = Annotated[str, typer.Option(help="host:port of etcd, for a mesh that is elsewhere.")]
EtcdCa = Annotated[
    Path | None,
    typer.Option(help="Authorities of that etcd, for TLS with it.", exists=True, dir_okay=False),
]
EtcdCertificate = Annotated[
    Path | None, typer.Option(help="Certificate to show to it.", exists=True, dir_okay=False)
]
EtcdKey = Annotated[
    Path | None, typer.Option(help="That certificate's key.", exists=True, dir_okay=False)
]
Prefix = Annotated[str, typer.Option(help="What every key of the mesh in etcd begins with.")]
Name = Annotated[str, typer.Argument(help=f"One of {', '.join(DEFAULTS)}.")]


@limits.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    data: Data = DEFAULT_DATA,
    etcd: Etcd = "",
    prefix: Prefix = "/whimbrel",
    *,
    etcd_ca: EtcdCa = None,
    etcd_certificate: EtcdCertificate = None,
    etcd_key: EtcdKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every limit, and whether it is set otherwise than by default."""
    try:
        tls = demand_good(StoreTls(ca=etcd_ca, certificate=etcd_certificate, key=etcd_key))
    except ValueError as error:
        _give_up(f"TLS with etcd: {error}")
    context.obj = data, etcd, prefix, tls
    if context.invoked_subcommand is not None:
        return
    said, complaints = _run(_read(_registry(context)))
    overrides, _ = read_overrides(json.dumps(said).encode(), DEFAULTS)
    overrides = overrides or {}
    for complaint in complaints:
        typer.echo(f"ignored: {complaint}", err=True)
    if as_json:
        shown = {**DEFAULTS, **overrides}
        told = {n: {**asdict(limit), "is_set": n in overrides} for n, limit in shown.items()}
        print(json.dumps(told, indent=2))
    else:
        _print(overrides)


@limits.command("set")
def set_(
    context: typer.Context,
    name: Name,
    burst: Annotated[int | None, typer.Option(help="Most at once.")] = None,
    per_second: Annotated[float | None, typer.Option(help="How many come back a second.")] = None,
) -> None:
    """Set a limit for every gateway, from now on."""
    given = {"burst": burst, "per_second": per_second}
    fields = {field: value for field, value in given.items() if value is not None}
    _, complaints = read_overrides(json.dumps({name: fields}).encode(), DEFAULTS)
    if complaints:
        _give_up(complaints[0])
    _run(_write(_registry(context), name, fields))


@limits.command()
def reset(context: typer.Context, name: Name) -> None:
    """Take back what was set of a limit."""
    if name not in DEFAULTS:
        _give_up(f"{name!r} is no limit; limits are {', '.join(sorted(DEFAULTS))}")
    _run(_write(_registry(context), name, None))


def _registry(context: typer.Context) -> Discovery:
    data, etcd, prefix, tls = context.obj
    try:
        return Discovery(etcd or find_mesh(data).etcd, prefix=prefix, tls=tls)
    except StackError as error:
        _give_up(str(error))


def _run(work: Any) -> Any:
    logs.configure(level="ERROR", service="admin", instance="")
    try:
        return asyncio.run(work)
    except (TimeoutError, Unavailable):
        _give_up("etcd does not answer")


async def _read(registry: Discovery) -> tuple[dict[str, Any], list[str]]:
    """What stands in etcd, as far as it can be read, and what is wrong with it."""
    async with registry as discovery:
        return await _known(discovery)


async def _write(registry: Discovery, name: str, fields: Mapping[str, Any] | None) -> None:
    async with registry as discovery:
        said, _ = await _known(discovery)
        said = {other: of_it for other, of_it in said.items() if other != name}
        if fields is not None:
            said[name] = dict(fields)
        await discovery.put_value(OVERRIDES, json.dumps(said).encode())


async def _known(discovery: Discovery) -> tuple[dict[str, Any], list[str]]:
    view = discovery.watch_value(OVERRIDES)
    async with asyncio.timeout(_SECONDS):
        await view.synced.wait()
    overrides, complaints = read_overrides(view.value, DEFAULTS)
    said = json.loads(view.value) if view.value and overrides is not None else {}
    return {name: said[name] for name in overrides or {}}, complaints


def _print(overrides: Mapping[str, Limit]) -> None:
    table = Table("limit", "burst", "per second", "without Redis", "set", "counts", box=None)
    for name, default in DEFAULTS.items():
        limit = overrides.get(name, default)
        table.add_row(
            name,
            f"{limit.burst:,}",
            f"{limit.per_second:,g}",
            "open" if limit.fails_open else "closed",
            "set" if name in overrides else "",
            limit.meaning,
        )
    Console(width=140).print(table)


def _give_up(why: str) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(1)
