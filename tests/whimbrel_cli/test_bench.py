"""`whimbrel bench` on a real mesh: short for every run of the tests, long for `make soak`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_WHIMBREL = str(Path(sys.executable).parent / "whimbrel")


def bench(tmp_path, *arguments, seconds=170):
    results = tmp_path / "bench.json"
    argv = [_WHIMBREL, "bench", *arguments, "--results", str(results), "--json"]
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=seconds, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(results.read_text())
    return json.loads(done.stdout)


@pytest.mark.timeout(180)
def test_a_short_run_tells_rate_cost_and_latency_and_what_they_were_measured_on(tmp_path):
    report = bench(tmp_path, "W1L", "--seconds", "1", "--warm-up", "0.5", "--tls")

    figures = report["W1L"]
    assert figures["per_s"] > 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    by_process = figures["cpu_us_by_process"]
    assert {"postgres", "valkey", "etcd", "message-1", "gateway-2"} <= by_process.keys()
    assert figures["cpu_us"] == pytest.approx(sum(by_process.values()), rel=0.01)
    assert report["machine"]["cores"] > 0
    assert report["versions"]["grpcio"]
    assert report["settings"]["shards"] == 2
    secure = figures["with_tls"]
    assert report["settings"]["tls"]
    assert 0 < secure["p50_ms"] <= secure["p99_ms"]


@pytest.mark.timeout(180)
def test_heartbeats_at_a_tenth_take_a_small_share_of_a_core(tmp_path):
    figures = bench(tmp_path, "P1", "--messages", "10000")["P1"]

    assert {"presence-1", "valkey", "gateways"} == figures["core_percent_by_process"].keys()
    assert 0 < figures["core_percent"] <= 8


def test_an_unknown_workload_is_named(tmp_path):
    done = subprocess.run(
        [_WHIMBREL, "bench", "W9"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )

    assert done.returncode == 2
    assert "W9" in done.stderr


@pytest.mark.soak
def test_the_cost_of_a_message_stays_flat_over_a_million(tmp_path):
    report = bench(tmp_path, "W1", "--messages", "1000000", seconds=None)

    costs = report["W1"]["cpu_us_by_100k"]
    assert len(costs) >= 9
    # Others use the machine too: the median of the last third against that of the first.
    first, last = sorted(costs[:3])[1], sorted(costs[-3:])[1]
    assert last <= 1.2 * first


@pytest.mark.soak
def test_a_run_with_telemetry_is_told_beside_the_one_without(tmp_path):
    report = bench(tmp_path, "W1L", "--seconds", "1", "--warm-up", "0.5", "--telemetry")

    figures = report["W1L"]
    observed = figures["with_telemetry"]
    assert report["settings"]["telemetry"]
    # The collector is no part of what is measured.
    assert observed["cpu_us_by_process"].keys() == figures["cpu_us_by_process"].keys()
    assert 0 < observed["p50_ms"] <= observed["p99_ms"]


@pytest.mark.soak
def test_every_workload_runs_at_its_full_size(tmp_path):
    report = bench(tmp_path, seconds=None)

    assert report["W2"]["rss_kib_per_connection"] > 0
    assert report["W4"]["cpu_us"] > 0
    assert report["P1"]["core_percent"] <= 8
    assert report["P2"]["p99_ms"] <= 100
    assert {"W1", "W1A", "W1L"} <= report.keys()
