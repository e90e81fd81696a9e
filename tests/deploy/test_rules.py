"""Prometheus understands rules and dashboards, and somebody records the metrics they ask for."""

import json
import re
from collections.abc import Iterator

import promql_parser
import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from mesh import metrics
from mesh.exporting import OnTelemetry
from tests.deploy.chart import CHART, ROOT, VALUES, objects

_RULES = [
    rule
    for group in yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
_ALERTS = [rule for rule in _RULES if "alert" in rule]
_MADE = {rule["record"] for rule in _RULES if "record" in rule}
_DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
_WRAPPING = (
    promql_parser.AggregateExpr,
    promql_parser.ParenExpr,
    promql_parser.SubqueryExpr,
    promql_parser.UnaryExpr,
)
_RECORDED = re.compile(r"\.(counter|histogram|gauge)\(\s*(?:metrics\.)?([A-Z_]+)\b")


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """The names that Prometheus sees of each metric that some service records."""
    registry = CollectorRegistry()
    meters = MeterProvider([PrometheusMetricReader(registry=registry)])
    telemetry = OnTelemetry(TracerProvider(), meters)
    for kind, name in sorted(set(_recorded())):
        metric = getattr(metrics, name)
        if kind == "counter":
            telemetry.counter(metric).add(1)
        elif kind == "histogram":
            telemetry.histogram(metric).record(1)
        else:
            telemetry.gauge(metric, lambda: 1)
    names = {sample.name for family in registry.collect() for sample in family.samples}
    meters.shutdown()
    return names


def _recorded() -> Iterator[tuple[str, str]]:
    for folder in ("mesh", "svc_*"):
        for path in ROOT.glob(f"{folder}/**/*.py"):
            yield from _RECORDED.findall(path.read_text())


def _name_of(rule) -> str:
    return rule.get("alert") or rule["record"]


@pytest.mark.parametrize("rule", _RULES, ids=_name_of)
def test_a_rule_asks_for_metrics_that_are_there(rule, exposed) -> None:
    asked = set(_selected(promql_parser.parse(rule["expr"])))

    assert asked
    assert asked <= exposed | _MADE


@pytest.mark.parametrize("path", _DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_draws_metrics_that_are_there(path, exposed) -> None:
    panels = json.loads(path.read_text())["panels"]

    assert panels
    for panel in panels:
        for target in panel["targets"]:
            asked = set(_selected(promql_parser.parse(target["expr"])))
            assert asked, target
            assert asked <= exposed | _MADE, target


def test_pods_are_scaled_by_metrics_that_are_there(exposed) -> None:
    scalers = objects(VALUES["everything"], "HorizontalPodAutoscaler").values()

    asked = {
        source["metric"]["name"]
        for scaler in scalers
        for one in scaler["spec"]["metrics"]
        if (source := one.get("pods") or one.get("external"))
    }

    assert asked == {"whimbrel_waiting", "whimbrel_inbox_lag"}
    assert asked <= exposed


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    written = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")}

    assert written == {rule["alert"] for rule in _ALERTS}
    for rule in _ALERTS:
        runbook = ROOT / rule["annotations"]["runbook_url"]
        text = runbook.read_text()
        assert text.startswith(f"# {rule['alert']}\n")
        assert all(part in text for part in ("## Look", "```sh", "## Do"))


def test_the_chart_gives_grafana_every_dashboard() -> None:
    maps = objects(VALUES["everything"], "ConfigMap").values()
    found = {
        name: json.loads(text)
        for one in maps
        if one["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in one["data"].items()
    }

    assert found == {path.name: json.loads(path.read_text()) for path in _DASHBOARDS}
    assert found


def _selected(expression: promql_parser.Expr) -> Iterator[str]:
    """The metrics that an expression reads."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield expression.vector_selector.name
    elif isinstance(expression, promql_parser.BinaryExpr):
        yield from _selected(expression.lhs)
        yield from _selected(expression.rhs)
    elif isinstance(expression, _WRAPPING):
        yield from _selected(expression.expr)
    elif isinstance(expression, promql_parser.Call):
        for argument in expression.args:
            yield from _selected(argument)


def test_each_rule_says_what_is_wrong_and_how_bad_it_is() -> None:
    assert len({_name_of(rule) for rule in _RULES}) == len(_RULES)
    for rule in _ALERTS:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_chart_leaves_the_templates_of_prometheus_alone() -> None:
    [rule] = objects(VALUES["everything"], "PrometheusRule").values()

    rendered = [rule for group in rule["spec"]["groups"] for rule in group["rules"]]

    assert rendered == _RULES
    alerts = [rule for rule in rendered if "alert" in rule]
    assert any("{{ $labels." in rule["annotations"]["summary"] for rule in alerts)
