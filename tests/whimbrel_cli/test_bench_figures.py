"""From what was seen of the servers to the figures: counting, reckoning, keeping."""

import io
import json
import subprocess
import sys
from collections import Counter as Counts
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from rich.console import Console

from whimbrel_cli.bench import crypto
from whimbrel_cli.bench.counting import Counter, Sample
from whimbrel_cli.bench.pairs import _gateway
from whimbrel_cli.bench.plan import Milestone, Person, Plan
from whimbrel_cli.bench.profiling import _counted
from whimbrel_cli.bench.report import WITH_TELEMETRY, keep, print_report, rounded
from whimbrel_cli.bench.workloads import memory, queue, traffic

# Burns CPU in a child that it reaps, in one that stays, and itself.
_BURNER = """
import subprocess, sys
burn = "import time\\nwhile time.process_time() < 0.3: pass\\n"
subprocess.run([sys.executable, "-c", burn], check=True)
child = subprocess.Popen(
    [sys.executable, "-c", burn + "print(flush=True)\\ninput()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
exec(burn)
print(flush=True)
input()
child.communicate(b"\\n")
"""

_MACHINE = {"cpu": "some", "cores": 2, "kernel": "6"}


@dataclass
class OneServer:
    """A mesh of one process."""

    pid: int

    def statuses(self):
        return [SimpleNamespace(name="burner", pid=self.pid), SimpleNamespace(name="x", pid=None)]


def sample(at, rss=0.0, **cpu):
    return Sample(at, cpu, {"gateway-1": rss, "gateway-2": rss, "message-1": 10 * rss})


def test_a_server_is_counted_with_its_children_also_those_that_are_gone():
    with subprocess.Popen(
        [sys.executable, "-c", _BURNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as burner:
        burner.stdout.readline()

        seen = Counter(OneServer(burner.pid)).sample()

        burner.communicate(b"\n")
    assert 0.85 <= seen.cpu["burner"] < 3
    assert seen.rss_kib["burner"] > 1000


def test_traffic_is_reckoned_between_open_and_close_only():
    result = {"p50_ms": 1.0, "p99_ms": 2.0, "retries": 0}
    seen = [
        (Milestone("connected"), sample(0.0, pg=0.0, gw=0.0)),
        (Milestone("open", done=100, seconds=10.0), sample(1.0, pg=1.0, gw=5.0)),
        (Milestone("mark", done=600, seconds=11.0), sample(2.0, pg=1.1, gw=5.0)),
        (Milestone("close", done=1100, seconds=12.0), sample(3.0, pg=1.2, gw=5.1)),
        (Milestone("settled", done=1108, seconds=12.5), sample(4.0, pg=9.0, gw=9.0)),
        (Milestone("finished", result=result), sample(5.0, pg=9.0, gw=9.0)),
    ]

    figures = traffic(seen)

    assert figures["per_s"] == 500
    assert figures["messages"] == 1000
    assert figures["cpu_us"] == pytest.approx(300)
    assert figures["cpu_us_by_process"] == pytest.approx({"pg": 200, "gw": 100})
    assert figures["cpu_us_by_100k"] == pytest.approx([200])


def test_memory_is_that_of_the_gateways_and_of_what_was_added():
    seen = [
        (Milestone("few", done=20), sample(0.0, rss=1000)),
        (Milestone("all", done=2020), sample(1.0, rss=41_000)),
    ]

    assert memory(seen) == {"rss_kib_per_connection": 40.0, "connections": 2000}


def test_a_queue_costs_the_mean_over_its_rounds():
    seen = [
        (Milestone("storing"), sample(0.0, pg=0.0)),
        (Milestone("stored", done=1000), sample(0.0, pg=0.1)),
        (Milestone("drained", done=1000), sample(0.0, pg=0.12)),
        (Milestone("storing"), sample(0.0, pg=5.0)),
        (Milestone("stored", done=1000), sample(0.0, pg=5.3)),
        (Milestone("drained", done=1000), sample(0.0, pg=5.34)),
    ]

    figures = queue(seen)

    assert figures["store_cpu_us"] == pytest.approx(200)
    assert figures["cpu_us"] == pytest.approx(30)


def test_pairs_use_every_combination_of_gateways_alike():
    pairs = Counts((_gateway(2 * pair, 2), _gateway(2 * pair + 1, 2)) for pair in range(48))

    assert pairs == {(0, 0): 12, (0, 1): 12, (1, 0): 12, (1, 1): 12}


def test_a_plan_and_a_milestone_survive_their_line():
    people = [Person(bytes(range(16)), "token")]
    plan = Plan(workload="pairs", gateways=["a:1"], people=people, payload_bytes=200, seconds=1.5)
    milestone = Milestone("open", 3, 1.5, {"p50_ms": 2.5})

    assert Plan.from_json(plan.to_json()) == plan
    assert Milestone.from_json(milestone.to_json()) == milestone
    assert "\n" not in plan.to_json() + milestone.to_json()


def test_figures_of_workloads_that_were_not_run_are_kept(tmp_path):
    path = tmp_path / "made" / "bench.json"
    keep({"W1": {"cpu_us": 1.0}, "W2": {"x": 1}}, path)
    keep({"W1": rounded({"cpu_us": 2.00049, "by": {"pg": 1.23456}})}, path)

    assert json.loads(path.read_text()) == {
        "W1": {"cpu_us": 2.0, "by": {"pg": 1.235}},
        "W2": {"x": 1},
    }


def test_a_profile_counts_a_function_once_a_sample_however_deep_it_calls_itself():
    own, under = _counted(["main (a.py:1);f (b.py:2);f (b.py:3) 4", "main (a.py:9) 1"])

    assert own == {"f (b.py": 4, "main (a.py": 1}
    assert under == {"f (b.py": 4, "main (a.py": 5}


def test_the_crypto_figures_are_measured_and_stand_in_the_table():
    figures = crypto.figures(share=0.01)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)

    print_report({"machine": _MACHINE, "versions": {}, "crypto": figures}, console)

    assert len(figures) == 10
    assert all(value > 0 for name, value in figures.items() if name.endswith("_per_s"))
    table = console.file.getvalue()
    assert table.count("crypto") == 8 + 1
    assert "turns_per_s" in table


def test_the_figures_with_telemetry_stand_beside_those_without_it():
    figures = {"p50_ms": 1.5, "p99_ms": 2.5, "cpu_us": 100.0}
    more = {"p50_ms": 1.75, "p99_ms": 13.25, "cpu_us": 110.0}
    both = {"machine": _MACHINE, "versions": {}, "W1L": {**figures, WITH_TELEMETRY: more}}
    console = Console(file=io.StringIO(), width=120)

    print_report({**both, "W1": figures}, console)

    rows = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["workload", "figure", "measured", "with", "telemetry", "must", "aim"] in rows
    assert ["W1L", "ms", "p50", "1.5", "1.8", "4", "2"] in rows
    assert ["W1L", "ms", "p99", "2.5", "13.2", "12", "5"] in rows
    assert ["W1", "µs", "CPU", "a", "message", "100.0", "380", "240"] in rows


@pytest.mark.parametrize(("rate", "growth", "met"), [(999_999, 0, True), (1, 99_999, False)])
def test_a_rate_is_good_when_it_is_high_and_a_cost_when_it_is_low(rate, growth, met):
    figures = dict.fromkeys(crypto.figures(share=0.01), rate) | {"attachment_growth_kib": growth}
    console = Console(file=io.StringIO(), force_terminal=True, width=120)

    print_report({"machine": _MACHINE, "versions": {}, "crypto": figures}, console)

    green, red = "\x1b[32m", "\x1b[31m"
    assert console.file.getvalue().count(green if met else red) == 8
    assert (red if met else green) not in console.file.getvalue()
