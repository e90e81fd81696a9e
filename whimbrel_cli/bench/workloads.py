"""The workloads by name: what each asks of the load process, and its figures from what was seen."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whimbrel_cli.bench.counting import Sample
from whimbrel_cli.bench.plan import Milestone

Seen = Sequence[tuple[Milestone, Sample]]
Figures = dict[str, Any]

_MARK_EVERY = 100_000
_IDLE = 2_000
_STORED = 5_000
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One row of the table."""

    name: str
    what: str
    kind: str  # how the load process calls it
    people: int
    figures: Callable[[Seen], Figures]
    outstanding: int = 1
    messages: int = 0
    rounds: int = 1
    presence: int = 0  # instances


def traffic(seen: Seen) -> Figures:
    """Rate, cost and latency of messages between people who are online."""
    by_name = {milestone.name: (milestone, sample) for milestone, sample in seen}
    (opened, before), (closed, after) = by_name["open"], by_name["close"]
    messages = closed.done - opened.done
    by_process = after.cpu_us_since(before, messages)
    result = by_name["finished"][0].result
    figures = {
        "per_s": messages / (closed.seconds - opened.seconds),
        "cpu_us": sum(by_process.values()),
        "p50_ms": result["p50_ms"],
        "p99_ms": result["p99_ms"],
        "cpu_us_by_process": by_process,
        "messages": messages,
        "retries": result["retries"],
    }
    marks = [(m, s) for m, s in seen if m.name in {"open", "mark"}]
    if len(marks) > 1:
        figures["cpu_us_by_100k"] = _by_mark(marks)
    return figures


def memory(seen: Seen) -> Figures:
    """What one more idle connection costs the gateways."""
    (few, before), (every, after) = seen[0], seen[1]
    grown = sum(
        after.rss_kib[name] - before.rss_kib[name]
        for name in after.rss_kib
        if name.startswith("gateway")
    )
    connections = every.done - few.done
    return {"rss_kib_per_connection": grown / connections, "connections": connections}


def queue(seen: Seen) -> Figures:
    """What storing for an absent device costs, and its catching up, over all rounds."""
    stored = _between(seen, "storing", "stored")
    drained = _between(seen, "stored", "drained")
    return {
        "cpu_us": sum(drained.values()),
        "store_cpu_us": sum(stored.values()),
        "cpu_us_by_process": drained,
        "store_cpu_us_by_process": stored,
    }


def group(seen: Seen) -> Figures:
    """Rate and cost between two milestones, and what the load process has measured itself."""
    by_name = {milestone.name: (milestone, sample) for milestone, sample in seen}
    (opened, before), (closed, after) = by_name["open"], by_name["close"]
    done = closed.done - opened.done
    by_process = after.cpu_us_since(before, done)
    return {
        "per_s": done / (closed.seconds - opened.seconds),
        "cpu_us": sum(by_process.values()),
        "cpu_us_by_process": by_process,
        **by_name["finished"][0].result,
    }


def channel(seen: Seen) -> Figures:
    """What a post costs Postgres and the instances, by how many of its followers are away."""
    spent: dict[str, list[dict[str, float]]] = {}
    for (opened, before), (closed, after) in itertools.pairwise(seen):
        if opened.name.startswith("open"):
            away = f"{int(opened.name.split()[1]):,} away"
            spent.setdefault(away, []).append(after.cpu_us_since(before, closed.done))
    by_process = {
        away: {name: sum(one[name] for one in rounds) / len(rounds) for name in rounds[0]}
        for away, rounds in spent.items()
    }
    costs = {
        away: sum(cost for name, cost in costs.items() if name.startswith(("postgres", "message")))
        for away, costs in by_process.items()
    }
    none, *_, most = costs.values()
    return {
        "cpu_growth": most / none,
        "cpu_us_by_away": costs,
        "cpu_us_by_process": [*by_process.values()][-1],
        **seen[-1][0].result,
    }


def beating(seen: Seen) -> Figures:
    """The share of a core that heartbeats take: of presence, of Valkey, of the gateways' part."""
    by_name = {milestone.name: (milestone, sample) for milestone, sample in seen}
    (_, before), (_, after) = by_name["open"], by_name["close"]
    wall = after.at - before.at
    percent = {
        name: 100 * (seconds - before.cpu[name]) / wall
        for name, seconds in after.cpu.items()
        if name.startswith(("presence", "valkey"))
    }
    percent["gateways"] = 100 * by_name["finished"][0].result["gateways_cpu_s"] / wall
    return {"core_percent": sum(percent.values()), "core_percent_by_process": percent}


def told(seen: Seen) -> Figures:
    """What the load process has measured itself."""
    return dict(seen[-1][0].result)


WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            name="W1",
            what="50 pairs, one writes, 4 outstanding a pair",
            kind="pairs",
            people=100,
            outstanding=4,
            figures=traffic,
        ),
        Workload(
            name="W1A",
            what="50 pairs that answer each other in turn, 4 outstanding a pair",
            kind="answers",
            people=100,
            outstanding=4,
            figures=traffic,
        ),
        Workload(
            name="W1L",
            what="2 pairs, 1 outstanding: the latency of a lone message",
            kind="pairs",
            people=4,
            figures=traffic,
        ),
        Workload(
            name="W2",
            what=f"{_IDLE:,} idle connections",
            kind="idle",
            people=_IDLE + 20,
            figures=memory,
        ),
        Workload(
            name="W3",
            what="a group of 200 who are online, 50 messages at once, each copy acked",
            kind="crowd",
            people=200,
            rounds=20,
            figures=group,
        ),
        Workload(
            name="W4",
            what=f"{_STORED:,} messages of 10 senders stored for an absent device, then drained",
            kind="stored",
            people=10 + _ROUNDS,
            outstanding=16,
            messages=_STORED,
            rounds=_ROUNDS,
            figures=queue,
        ),
        Workload(
            name="W5",
            what="a group of 1,000 of whom 100 are online",
            kind="mass",
            people=1_000,
            figures=group,
        ),
        Workload(
            name="W6",
            what="one hot group, 64 senders at once",
            kind="hot",
            people=64,
            outstanding=2,
            figures=group,
        ),
        Workload(
            name="W7",
            what="posts to 1,000 followers who are online and 0, 100,000, 1,000,000 who are away",
            kind="wide",
            people=1_001,
            figures=channel,
        ),
        Workload(
            name="P1",
            what="the heartbeats of 100,000 people at 10 gateways, whom nobody watches",
            kind="heartbeats",
            people=1,
            presence=1,
            figures=beating,
        ),
        Workload(
            name="P2",
            what="somebody who comes and goes, watched by 50 people at 2 gateways",
            kind="flips",
            people=51,
            presence=2,
            figures=told,
        ),
    )
}
MARK_EVERY = _MARK_EVERY

# Whose load can come by TLS.
BY_TLS = ("W1", "W1A", "W1L", "W2")

# Needs no mesh, so it is not one of those.
CRYPTO, FILES = "crypto", "files"
DESCRIPTIONS: Mapping[str, str] = {
    **{name: workload.what for name, workload in WORKLOADS.items()},
    CRYPTO: "the protocol core on one core, 200-byte messages",
    FILES: "grants, and 1 GiB through the SDK and the store",
}


def _by_mark(marks: Seen) -> list[float]:
    costs = []
    for (earlier, before), (later, after) in itertools.pairwise(marks):
        costs.append(sum(after.cpu_us_since(before, later.done - earlier.done).values()))
    return costs


def _between(seen: Seen, first: str, last: str) -> dict[str, float]:
    """Microseconds a message between two milestones, by server, over all their rounds."""
    befores = [sample for milestone, sample in seen if milestone.name == first]
    afters = [(milestone.done, sample) for milestone, sample in seen if milestone.name == last]
    total: dict[str, float] = dict.fromkeys(befores[0].cpu, 0.0)
    for before, (messages, after) in zip(befores, afters, strict=True):
        for name, cost in after.cpu_us_since(before, messages * len(befores)).items():
            total[name] += cost
    return total
