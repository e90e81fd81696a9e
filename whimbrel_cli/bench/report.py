"""Shows figures as a table that a person can read, and keeps them as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from whimbrel_cli.bench.workloads import WORKLOADS, Figures

# (workloads, figure, must, aim, unit): what the project holds itself to.
_GOALS: tuple[tuple[tuple[str, ...], str, float, float, str], ...] = (
    (("W1", "W1A"), "cpu_us", 380, 240, "µs CPU a message"),
    (("W1L",), "p50_ms", 4, 2, "ms p50"),
    (("W1L",), "p99_ms", 12, 5, "ms p99"),
    (("W2",), "rss_kib_per_connection", 45, 36, "KiB a connection"),
    (("W4",), "cpu_us", 60, 30, "µs CPU a message drained"),
    (("W4",), "store_cpu_us", 200, 100, "µs CPU a message stored"),
)
_DETAILS = ("per_s", "p50_ms", "p99_ms", "cpu_us_by_process", "cpu_us_by_100k")


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """The figures that have a goal, then what they are made of."""
    machine, versions = report["machine"], report["versions"]
    console.print(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}")
    console.print(", ".join(f"{name} {version}" for name, version in versions.items()))
    table = Table("workload", "figure", "measured", "must", "aim", box=None, pad_edge=False)
    for names, figure, must, aim, unit in _GOALS:
        for name in names:
            if name in report:
                table.add_row(
                    name, unit, _judged(report[name][figure], must), f"{must:g}", f"{aim:g}"
                )
    console.print(table)
    for name, figures in report.items():
        if name in WORKLOADS and (details := _details(figures)):
            console.print(f"{name}: {details}", highlight=False)


def keep(report: Mapping[str, Any], path: Path) -> None:
    """Write the file; the figures of workloads that were not run now stay as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**earlier, **report}, indent=2) + "\n")


def rounded(figures: Figures) -> Figures:
    """The figures with three decimals, all the way down."""
    return {name: _rounded(value) for name, value in figures.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return rounded(value)
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


def _judged(value: float, must: float) -> str:
    return f"[{'green' if value <= must else 'red'}]{value:.1f}[/]"


def _details(figures: Figures) -> str:
    parts = []
    for name in _DETAILS:
        value = figures.get(name)
        if isinstance(value, dict):
            parts += [f"{process} {cost:.1f}" for process, cost in value.items()]
        elif isinstance(value, list):
            parts.append(f"{name}: {', '.join(f'{cost:.0f}' for cost in value)}")
        elif value is not None:
            parts.append(f"{name} {value:,.1f}")
    return ", ".join(parts)
