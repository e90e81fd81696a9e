"""Shows figures as a table that a person can read, and keeps them as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from whimbrel_cli.bench.workloads import CRYPTO, DESCRIPTIONS, FILES, Figures

# Under these, beside a workload's figures, stand those of the runs with it on.
WITH_TELEMETRY, WITH_TLS = "with_telemetry", "with_tls"
_HEADINGS = {WITH_TELEMETRY: "with telemetry", WITH_TLS: "with TLS"}


class Goal(NamedTuple):
    """What the project holds a figure of these workloads to."""

    workloads: tuple[str, ...]
    figure: str
    must: float
    aim: float
    unit: str
    more_is_better: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.must if self.more_is_better else value <= self.must


_GOALS = (
    Goal(("W1", "W1A"), "cpu_us", 380, 240, "µs CPU a message"),
    Goal(("W1L",), "p50_ms", 4, 2, "ms p50"),
    Goal(("W1L",), "p99_ms", 12, 5, "ms p99"),
    Goal(("W2",), "rss_kib_per_connection", 45, 36, "KiB a connection"),
    Goal(("W3",), "cpu_us", 110, 54, "µs CPU a copy acked"),
    Goal(("W5",), "p99_ms", 15, 5, "ms p99 of the sender's ack"),
    Goal(("W5",), "written_s", 1, 0.2, "s to all queues"),
    Goal(("W6",), "per_s", 2_000, 5_000, "accepted/s", more_is_better=True),
    Goal(("W6",), "p99_ms", 200, 100, "ms p99 of the sender's ack"),
    Goal(("W7",), "cpu_growth", 1.15, 1.05, "times the CPU a post with 1,000,000 away"),
    Goal(("P1",), "core_percent", 8, 5, "% of a core for all heartbeats"),
    Goal(("P2",), "p99_ms", 100, 50, "ms p99 to 50 watchers"),
    Goal(("W4",), "cpu_us", 60, 30, "µs CPU a message drained"),
    Goal(("W4",), "store_cpu_us", 200, 100, "µs CPU a message stored"),
    Goal((CRYPTO,), "set_ups_per_s", 1_000, 1_600, "set-ups/s", more_is_better=True),
    Goal((CRYPTO,), "one_way_per_s", 25_000, 30_000, "one way/s", more_is_better=True),
    Goal((CRYPTO,), "one_way_spqr_per_s", 6_000, 7_800, "one way with SPQR/s", more_is_better=True),
    Goal((CRYPTO,), "sender_key_sends_per_s", 4_500, 5_100, "group sends/s", more_is_better=True),
    Goal(
        (CRYPTO,),
        "sender_key_receives_per_s",
        14_000,
        16_700,
        "group receives/s",
        more_is_better=True,
    ),
    Goal((CRYPTO,), "sealed_mib_per_s", 400, 480, "MiB/s sealed", more_is_better=True),
    Goal((CRYPTO,), "opened_mib_per_s", 400, 480, "MiB/s opened", more_is_better=True),
    Goal((CRYPTO,), "attachment_growth_kib", 1_024, 256, "KiB more for 16 times the file"),
    Goal((FILES,), "grant_cpu_us", 400, 250, "µs CPU a grant"),
    Goal((FILES,), "sent_mib_per_s", 150, 250, "MiB/s sent", more_is_better=True),
    Goal((FILES,), "saved_mib_per_s", 150, 250, "MiB/s saved", more_is_better=True),
    Goal((FILES,), "sdk_rss_mib", 120, 100, "MiB of memory, of the SDK"),
)
_DETAILS = (
    *("per_s", "p50_ms", "p99_ms", "cpu_us_by_process", "cpu_us_by_100k", "cpu_us_by_away"),
    *("turns_per_s", "turns_spqr_per_s", "core_percent_by_process"),
    *("store_takes_mib_per_s", "store_gives_mib_per_s", "grant_mesh_cpu_us"),
)


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """The figures that have a goal, then what they are made of."""
    machine, versions = report["machine"], report["versions"]
    console.print(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}")
    console.print(", ".join(f"{name} {version}" for name, version in versions.items()))
    more = [on for on in _HEADINGS if any(on in report.get(name, {}) for name in DESCRIPTIONS)]
    columns = ["measured", *(_HEADINGS[on] for on in more), "must", "aim"]
    table = Table("workload", "figure", *columns, box=None, pad_edge=False)
    for goal in _GOALS:
        for name in goal.workloads:
            if name in report:
                measured = [_judged(report[name][goal.figure], goal)]
                for on in more:
                    figures = report[name].get(on)
                    measured.append(_judged(figures[goal.figure], goal) if figures else "")
                table.add_row(name, goal.unit, *measured, f"{goal.must:,}", f"{goal.aim:,}")
    console.print(table)
    for name, figures in report.items():
        if name in DESCRIPTIONS and (details := _details(figures)):
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


def _judged(value: float, goal: Goal) -> str:
    return f"[{'green' if goal.is_met(value) else 'red'}]{value:,.1f}[/]"


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
