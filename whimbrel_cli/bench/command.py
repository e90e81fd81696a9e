"""`whimbrel bench`: runs workloads, prints their figures and keeps them as JSON."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mesh import logs
from mesh.errors import root_cause
from whimbrel_cli.bench import crypto, files
from whimbrel_cli.bench.machine import load_average, machine, versions
from whimbrel_cli.bench.plan import Milestone
from whimbrel_cli.bench.profiling import Sampler, Target, print_profile
from whimbrel_cli.bench.report import WITH_TELEMETRY, WITH_TLS, keep, print_report, rounded
from whimbrel_cli.bench.running import Size, run
from whimbrel_cli.bench.workloads import BY_TLS, CRYPTO, DESCRIPTIONS, FILES, WORKLOADS, Figures
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.up import DEFAULT_DATA

_RESULTS = "bench.json"
_PROFILE = "profile.txt"


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKLOAD]...", help="All, unless named.")
    ] = None,
    *,
    seconds: Annotated[float, typer.Option(help="Measured traffic of W1, W1A, W1L.")] = 15,
    messages: Annotated[int, typer.Option(help="Measured messages, in place of seconds.")] = 0,
    warm_up: Annotated[float, typer.Option(help="Seconds of traffic before that.")] = 5,
    payload: Annotated[int, typer.Option(help="Bytes of a message.")] = 200,
    gateways: Annotated[int, typer.Option(min=1, help="Gateway instances.")] = 2,
    message: Annotated[int, typer.Option(min=1, help="Message service instances.")] = 2,
    shards: Annotated[int, typer.Option(min=1, help="Shards: one database each.")] = 2,
    profile: Annotated[str, typer.Option(help="Sample this process, such as gateway-1.")] = "",
    native: Annotated[bool, typer.Option(help="With the frames of C code.")] = False,
    telemetry: Annotated[bool, typer.Option("--telemetry", help="Once more, with it on.")] = False,
    tls: Annotated[
        bool, typer.Option("--tls", help=f"{', '.join(BY_TLS)} once more, with TLS.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Where the JSON goes.")] = DEFAULT_DATA / _RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what a message, a connection and a stored message cost, and how fast the crypto is.

    Every workload but crypto gets a fresh mesh on a temporary folder, without TLS and telemetry.
    The CPU of all its servers counts, Postgres, Valkey and etcd too. With --telemetry, each is run
    on a second mesh that tells metrics and samples traces, as one in production would; with --tls,
    some on one where clients, gateways and services speak TLS with each other.
    """
    logs.configure(level="ERROR", service="bench", instance="")
    unknown = [name for name in names or () if name not in DESCRIPTIONS]
    if unknown:
        raise typer.BadParameter(f"no workload {unknown[0]!r}; there are {', '.join(DESCRIPTIONS)}")
    if profile and (telemetry or tls):
        raise typer.BadParameter("--profile is of one run: leave --telemetry and --tls out")
    size = Size(
        seconds=seconds,
        messages=messages,
        warm_up=warm_up,
        payload_bytes=payload,
        gateways=gateways,
        message=message,
        shards=shards,
    )
    console = Console(stderr=as_json)
    try:
        report = asyncio.run(
            _run_all(
                names or [*DESCRIPTIONS],
                size,
                Target(profile, native=native),
                results,
                console,
                telemetry=telemetry,
                tls=tls,
            )
        )
    except (StackError, ExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, StackError):
            raise
        print(cause, file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report, console)


async def _run_all(
    names: Sequence[str],
    size: Size,
    target: Target,
    results: Path,
    console: Console,
    *,
    telemetry: bool,
    tls: bool,
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "settings": {**vars(size), "tls": tls, "telemetry": telemetry},
    }
    for name in names:
        console.print(f"{name}: {DESCRIPTIONS[name]} …", highlight=False)
        figures = await _run_one(name, size, target, console)
        if telemetry and name in WORKLOADS:
            console.print(f"{name}: with telemetry …", highlight=False)
            figures[WITH_TELEMETRY] = await _run_one(name, size, target, console, observe=True)
        if tls and name in BY_TLS:
            console.print(f"{name}: with TLS …", highlight=False)
            figures[WITH_TLS] = await _run_one(name, size, target, console, tls=True)
        report[name] = rounded({**figures, "load_average": load_average()})
        keep(report, results)  # a later workload may fail
    return report


async def _run_one(
    name: str,
    size: Size,
    target: Target,
    console: Console,
    *,
    observe: bool = False,
    tls: bool = False,
) -> Figures:
    if name == CRYPTO:
        return dict(await crypto.measured())
    if name == FILES:
        return dict(await files.measured())
    if not target.process:

        def show(milestone: Milestone, _mesh: Mesh) -> None:
            if milestone.name == "mark":
                console.print(f"  {milestone.done:,} messages", highlight=False)

        return await run(WORKLOADS[name], size, show, observe=observe, tls=tls)
    into = DEFAULT_DATA / f"{name}-{target.process}-{_PROFILE}"
    into.parent.mkdir(exist_ok=True)
    sampler = Sampler(into, native=target.native)

    def sample(milestone: Milestone, mesh: Mesh) -> None:
        if milestone.name in {"open", "stored"}:
            sampler.start(mesh.pid_of(target.process))
        elif milestone.name in {"close", "drained"}:
            sampler.stop()

    try:
        figures = await run(WORKLOADS[name], size, sample)
    finally:
        sampler.stop()
    print_profile(into, console)
    return figures
