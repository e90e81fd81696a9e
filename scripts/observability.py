"""Writes the chart's Prometheus rules and Grafana dashboards, out of the list of metrics.

What is asked of a metric is asked by the constant in `mesh/metrics.py`, so none can be misnamed.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mesh import metrics as m

ROOT = Path(__file__).parents[1]
RUNBOOKS = "docs/runbooks"  # of this repository
_HEAD = "# Made by `make gen` out of scripts/observability.py; do not edit.\n"


class Kind(NamedTuple):
    """How Prometheus names what is recorded so."""

    suffix: str


COUNTER, HISTOGRAM, GAUGE = Kind("_total"), Kind(""), Kind("")


class Alert(NamedTuple):
    """What wakes somebody, and why."""

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str


def named(metric: m.Metric, kind: Kind = GAUGE) -> str:
    """The metric as Prometheus has it."""
    units = {"s": "_seconds", "By": "_bytes"}
    name = metric.name.replace(".", "_")
    unit = units.get(metric.unit, "")
    return name + ("" if name.endswith(unit) else unit) + kind.suffix


def rate(metric: m.Metric, by: str = "", where: str = "", over: str = "5m") -> str:
    """How often something is counted a second."""
    return f"sum{f' by ({by})' if by else ''} (rate({named(metric, COUNTER)}{where}[{over}]))"


def percentile(metric: m.Metric, share: float, by: str = "", where: str = "") -> str:
    """The time within which a share of what is measured lies."""
    labels = f"le, {by}" if by else "le"
    bucket = f"{named(metric, HISTOGRAM)}_bucket{where}"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({bucket}[5m])))"


_KEYLESS = '{kind=~"ec_none|kem_last_resort"}'
_FAILED = '{answer!~"Delivered|Gone"}'
_ONLINE = '{stream="online"}'
# The times that are drawn and alarmed on: recorded once, read often.
RECORDED: Mapping[str, str] = {
    f"whimbrel:{tick}_seconds:{name}": percentile(metric, share, where=where)
    for tick, metric, where in (
        ("accepted", m.SENT_ACCEPTED, ""),
        ("delivered", m.ACCEPTED_DELIVERED, _ONLINE),
        ("read", m.DELIVERED_READ, ""),
        ("push_fetched", m.PUSH_FETCHED, ""),
    )
    for name, share in (("p50", 0.5), ("p99", 0.99))
}

_CALLS = f"{named(m.CALLS, HISTOGRAM)}_count"
ALERTS = (
    Alert(
        "WhimbrelNoGateway",
        f"absent({named(m.SESSIONS)})",
        "2m",
        "critical",
        "No gateway shows its metrics, so that no device may be connected",
    ),
    Alert(
        "WhimbrelGatewayDead",
        f"max({named(m.GATEWAYS)}) < max_over_time(max({named(m.GATEWAYS)})[15m:])",
        "5m",
        "warning",
        "A gateway that was attached a quarter of an hour ago is not any more",
    ),
    Alert(
        "WhimbrelAcceptedSlowly",
        "whimbrel:accepted_seconds:p99 > 1",
        "5m",
        "critical",
        "One send in a hundred takes over a second to its first tick",
    ),
    Alert(
        "WhimbrelDeliveredSlowly",
        "whimbrel:delivered_seconds:p99 > 10",
        "10m",
        "warning",
        "One message in a hundred takes over ten seconds to a device that is online",
    ),
    Alert(
        "WhimbrelReadsNotTold",
        f"sum(rate({named(m.ACCEPTED_DELIVERED, HISTOGRAM)}_count{_ONLINE}[30m])) > 1"
        f" and sum(rate({named(m.DELIVERED_READ, HISTOGRAM)}_count[30m])) == 0",
        "30m",
        "warning",
        "Messages are delivered to devices that are online, and none is read",
    ),
    Alert(
        "WhimbrelQueuesLong",
        f"max by (kind) ({named(m.WAITING)}) > 5000",
        "2m",
        "critical",
        "Over 5,000 items of {{ $labels.kind }} wait for a batch; 20,000 are refused",
    ),
    Alert(
        "WhimbrelOutboxOld",
        f"max by (shard) ({named(m.OUTBOX_AGE)}) > 60",
        "5m",
        "critical",
        "A message of shard {{ $labels.shard }} has waited over a minute to be carried on",
    ),
    Alert(
        "WhimbrelShardDown",
        f"max by (shard) ({named(m.SHARD_UP)}) == 0",
        "1m",
        "critical",
        "No message instance reaches shard {{ $labels.shard }}",
    ),
    Alert(
        "WhimbrelPrekeysLow",
        f"{rate(m.PREKEYS_TAKEN, '', _KEYLESS, '1h')} / {rate(m.PREKEYS_TAKEN, over='1h')} > 0.2",
        "1h",
        "warning",
        "More than one session in five is opened without a one-time key",
    ),
    Alert(
        "WhimbrelPushesFail",
        f"{rate(m.PUSHES, 'provider', _FAILED)} / {rate(m.PUSHES, 'provider')} > 0.1",
        "10m",
        "warning",
        "More than one wake-up in ten fails at {{ $labels.provider }}",
    ),
    Alert(
        "WhimbrelCallsFail",
        f'sum by (job) (rate({_CALLS}{{code=~"INTERNAL|UNKNOWN"}}[5m]))'
        f" / sum by (job) (rate({_CALLS}[5m])) > 0.01",
        "5m",
        "critical",
        "More than one call in a hundred of {{ $labels.job }} ends by a bug",
    ),
    Alert(
        "WhimbrelSendsRefused",
        f"{rate(m.REFUSED)} / ({rate(m.REFUSED)} + {rate(m.ACCEPTED)}) > 0.1",
        "10m",
        "warning",
        "More than one send in ten is refused",
    ),
    Alert(
        "WhimbrelInstancesChange",
        f"{rate(m.REPEATS)} > 1",
        "10m",
        "warning",
        "Gateways repeat requests to other instances, as if those they asked were dying",
    ),
    Alert(
        "WhimbrelEventsDropped",
        f"sum by (shard) (increase({named(m.EVENTS_DROPPED, COUNTER)}[15m])) > 0",
        "0m",
        "critical",
        "Events of shard {{ $labels.shard }} were dropped before a team had read them",
    ),
    Alert(
        "WhimbrelCertificateRefused",
        f"sum by (job) (increase({named(m.CERTIFICATES_REFUSED, COUNTER)}[15m])) > 0",
        "0m",
        "warning",
        "Renewed certificate files of {{ $labels.job }} are not good, and are left alone",
    ),
    Alert(
        "WhimbrelCertificateExpires",
        f"min by (job, shown_to) ({named(m.CERTIFICATE_EXPIRY)}) < 7 * 86400",
        "1h",
        "critical",
        "What {{ $labels.job }} shows to {{ $labels.shown_to }} expires within a week",
    ),
    Alert(
        "WhimbrelLimitsOpen",
        f"sum by (limit) (rate({named(m.LIMIT_FAILED_OPEN, COUNTER)}[5m])) > 0",
        "5m",
        "warning",
        "Gateways cannot ask Redis for the limit {{ $labels.limit }}, and let everything through",
    ),
    Alert(
        "WhimbrelBodiesDropped",
        f"{rate(m.DROPPED_BODIES)} > 10",
        "10m",
        "warning",
        "Gateways do not keep up, and get doorbells instead of messages",
    ),
)


def _times(tick: str) -> Mapping[str, str]:
    return {name: f"whimbrel:{tick}_seconds:{name}" for name in ("p50", "p99")}


_OFFLINE = percentile(m.ACCEPTED_DELIVERED, 0.5, where='{stream="offline"}')
# By dashboard: each panel's title, its unit, and its lines by legend.
DASHBOARDS: Mapping[str, Sequence[tuple[str, str, Mapping[str, str]]]] = {
    "messages": (
        ("Sent to accepted ✓", "s", _times("accepted")),
        ("Accepted to delivered ✓✓, online", "s", _times("delivered")),
        ("Accepted to delivered, offline", "s", {"p50": _OFFLINE}),
        ("Delivered to read", "s", _times("read")),
        ("Wake-up to stream", "s", _times("push_fetched")),
        (
            "Messages",
            "ops",
            {"accepted": rate(m.ACCEPTED), "deliveries": rate(m.DELIVERIES)},
        ),
        ("Refused sends", "ops", {"{{reason}}": rate(m.REFUSED, "reason")}),
        ("Wake-ups", "ops", {"{{provider}} {{answer}}": rate(m.PUSHES, "provider, answer")}),
    ),
    "shards": (
        ("Reached", "short", {"{{shard}}": f"max by (shard) ({named(m.SHARD_UP)})"}),
        ("Outbox", "short", {"{{shard}}": f"max by (shard) ({named(m.OUTBOX_PENDING)})"}),
        ("Oldest in the outbox", "s", {"{{shard}}": f"max by (shard) ({named(m.OUTBOX_AGE)})"}),
        ("Rows in inboxes", "short", {"{{shard}}": f"max by (shard) ({named(m.INBOX_LAG)})"}),
        ("Batches, p99", "s", {"{{kind}}": percentile(m.BATCHES, 0.99, "kind")}),
        ("Items a batch, median", "short", {"{{kind}}": percentile(m.BATCH_ITEMS, 0.5, "kind")}),
        ("Waiting for a batch", "short", {"{{kind}}": f"sum by (kind) ({named(m.WAITING)})"}),
        (
            "One-time keys",
            "short",
            {"{{kind}} {{shard}}": f"max by (kind, shard) ({named(m.PREKEY_STOCK)})"},
        ),
    ),
    "gateways": (
        ("Sessions", "short", {"{{instance}}": f"sum by (instance) ({named(m.SESSIONS)})"}),
        ("Sessions sent to others", "ops", {"{{instance}}": rate(m.SESSIONS_SHED, "instance")}),
        ("Ends of sessions", "ops", {"{{reason}}": rate(m.SESSION_ENDS, "reason")}),
        ("Frames to devices", "ops", {"{{instance}}": rate(m.FRAMES, "instance")}),
        (
            "Unacked bytes",
            "bytes",
            {"{{instance}}": f"sum by (instance) ({named(m.UNACKED_BYTES)})"},
        ),
        ("Repeated requests", "ops", {"{{instance}}": rate(m.REPEATS, "instance")}),
        ("Attached to message instances", "short", {"{{instance}}": named(m.GATEWAYS)}),
        ("Calls, p99", "s", {"{{method}}": percentile(m.CALLS, 0.99, "method")}),
    ),
}


def rules() -> dict[str, Any]:
    """The rules as Prometheus reads them."""
    recorded = [{"record": name, "expr": expr} for name, expr in RECORDED.items()]
    alerts = [
        {
            "alert": alert.name,
            "expr": alert.expr,
            "for": alert.lasting,
            "labels": {"severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "runbook_url": f"{RUNBOOKS}/{alert.name}.md",
            },
        }
        for alert in ALERTS
    ]
    return {
        "groups": [
            {"name": "whimbrel-times", "rules": recorded},
            {"name": "whimbrel", "rules": alerts},
        ]
    }


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    panels = [
        _panel(place, title, unit, lines)
        for place, (title, unit, lines) in enumerate(DASHBOARDS[name])
    ]
    variable = {"name": "source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"whimbrel-{name}",
        "title": f"Whimbrel: {name}",
        "tags": ["whimbrel"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": panels,
    }


def _panel(place: int, title: str, unit: str, lines: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"x": place % 2 * 12, "y": place // 2 * 8, "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expr, "legendFormat": legend}
            for number, (legend, expr) in enumerate(lines.items())
        ],
    }


def main() -> None:
    """Write all files."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "helm" / "whimbrel" / "files"
    (out / "dashboards").mkdir(parents=True, exist_ok=True)
    said = yaml.safe_dump(rules(), sort_keys=False, width=120, allow_unicode=True)
    (out / "rules.yaml").write_text(_HEAD + said)
    for name in DASHBOARDS:
        said = json.dumps(dashboard(name), indent=2, ensure_ascii=False)
        (out / "dashboards" / f"{name}.json").write_text(f"{said}\n")


if __name__ == "__main__":
    main()
