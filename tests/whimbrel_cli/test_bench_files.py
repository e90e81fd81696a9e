"""Files at the size that is measured: by the SDK alone in a process, through the whole mesh."""

import io

import pytest
from rich.console import Console

from whimbrel_cli.bench import files
from whimbrel_cli.bench.report import print_report

_MACHINE = {"cpu": "a processor", "cores": 2, "kernel": "6"}


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("mib", "grants"),
    [(102, 80), pytest.param(1024, 4000, marks=pytest.mark.soak)],
    ids=["a tenth of a GiB", "a GiB"],
)
async def test_a_large_file_goes_through_in_little_memory(mib: int, grants: int) -> None:
    figures = await files.measured(mib, grants)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    print_report({"machine": _MACHINE, "versions": {}, "files": figures}, console)

    assert figures["sdk_rss_mib"] < 120
    assert all(value > 0 for value in figures.values())
    assert "store_takes_mib_per_s" in console.file.getvalue()
