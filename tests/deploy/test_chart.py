"""What the chart renders is what Kubernetes takes, and hardened, whatever the values."""

import functools
import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
import yaml
from helm_python import lint
from kubernetes_validate import utils
from pydantic import TypeAdapter

from mesh.authority import identity
from tests.deploy.chart import (
    CHART,
    COMPONENT,
    TABLE,
    VALUES,
    environment,
    objects,
    pods,
    rendered,
    service_pods,
)

_SCHEMAS = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text())
_BUILT_IN = ("v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1")


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


@pytest.mark.parametrize("version", ["1.30", "1.33", "1.37"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_kubernetes_takes_what_is_rendered(values, version) -> None:
    for one in rendered(values):
        if one["apiVersion"] in _BUILT_IN:
            utils.validate(one, version, strict=True)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_custom_resources_are_as_their_controllers_take_them(values) -> None:
    for one in rendered(values):
        if one["apiVersion"] not in _BUILT_IN:
            jsonschema.validate(one["spec"], _SCHEMAS[one["kind"]])


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_helm_has_no_complaint(values) -> None:
    report = lint(CHART, values, strict=True, kube_version="v1.33.0")

    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_no_two_objects_have_one_name(values) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered(values)]

    assert len(names) == len(set(names))


def test_the_defaults_need_no_custom_resource_and_leave_out_no_safeguard() -> None:
    kinds = {(one["apiVersion"], one["kind"]) for one in rendered()}

    assert {version for version, _ in kinds} <= set(_BUILT_IN)
    assert {
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("batch/v1", "Job"),
    } <= kinds


def test_each_custom_resource_is_made_by_values_of_the_tests() -> None:
    kinds = {one["kind"] for values in VALUES.values() for one in rendered(values)}

    assert set(_SCHEMAS) <= kinds


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_every_pod_is_restricted(values) -> None:
    for name, pod in pods(values):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"requests", "limits"} <= set(container["resources"]), name


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_kubernetes_puts_no_variable_of_its_own_beside_the_settings(values) -> None:
    # For a Service chat-whimbrel-… it would; ours refuse to start with variables they do not know.
    assert {pod["spec"]["enableServiceLinks"] for _, pod in pods(values)} == {False}


@pytest.mark.parametrize("drain", [1, 300])
def test_a_drain_fits_the_grace(drain) -> None:
    values = {"preStopSeconds": 20, "services": {name: {"drainSeconds": drain} for name in TABLE}}

    for name, spec in service_pods(values).items():
        told = environment(spec)[f"WHIMBREL_{name.upper()}_DRAIN"]["value"]
        drained = TypeAdapter(timedelta).validate_python(told).total_seconds()
        waited = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert (drained, waited) == (drain, 20)
        # After the drain come a second for the last calls and three for each exporter.
        assert spec["terminationGracePeriodSeconds"] >= waited + drained + 1 + 2 * 3


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_probes_ask_the_port_that_tells_the_health_and_nothing_else(values) -> None:
    for name, spec in service_pods(values).items():
        [container] = spec["containers"]
        listening = environment(spec)[f"WHIMBREL_{name.upper()}_LISTEN"]["value"]
        port = int(listening.removeprefix("0.0.0.0:"))
        probed = environment(spec)[f"WHIMBREL_{name.upper()}_HEALTH_LISTEN"]["value"]
        health = int(probed.removeprefix("0.0.0.0:"))
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["grpc"] == {"port": health} != {"port": port}
        assert {"name": "grpc", "containerPort": port} in container["ports"]


def test_services_that_are_told_to_speak_plaintext_are_told_of_as_such() -> None:
    files = {f"tls__{name}": None for name in ("certificate", "key", "ca")}
    insecure = {"settings": {"tls__insecure": True}, "files": files}
    plain = objects({"services": dict.fromkeys(TABLE, insecure)}, "Service")
    secure = objects(None, "Service")

    for name in TABLE.keys() - {"gateway"}:
        assert plain[name]["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/h2c"
        assert secure[name]["spec"]["ports"][0]["appProtocol"] == "https"


def test_pods_are_spread_over_zones_and_nodes() -> None:
    for name, spec in service_pods().items():
        keys = [one["topologyKey"] for one in spec["topologySpreadConstraints"]]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for one in spec["topologySpreadConstraints"]:
            assert one["labelSelector"]["matchLabels"][COMPONENT] == name


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_every_selector_finds_the_pods_of_its_component_and_no_others(values) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(values)}

    for one in rendered(values):
        selector = one.get("spec", {}).get("podSelector") or one.get("spec", {}).get("selector")
        if not selector or one["kind"] == "ServiceMonitor":
            continue
        wanted = selector.get("matchLabels", selector).items()
        found = [name for name, has in labels.items() if wanted <= has.items()]
        component = one["metadata"]["labels"][COMPONENT]
        assert found == ["gateway" if component == "public" else component]


def test_prometheus_reads_each_service_once() -> None:
    values = VALUES["everything"]
    [monitor] = objects(values, "ServiceMonitor").values()
    wanted = monitor["spec"]["selector"]["matchLabels"].items()

    found = {
        name
        for name, service in objects(values, "Service").items()
        if wanted <= service["metadata"]["labels"].items()
        and any(port["name"] == "metrics" for port in service["spec"]["ports"])
    }

    assert found == set(TABLE)
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] == "metrics"
    assert (endpoint["scheme"], endpoint["tlsConfig"]["serverName"]) == (
        "https",
        "metrics.whimbrel",
    )


def test_metrics_are_not_shown_to_the_public() -> None:
    public = objects(VALUES["everything"], "Service")["public"]

    assert [port["name"] for port in public["spec"]["ports"]] == ["grpc"]
    assert public["spec"]["externalTrafficPolicy"] == "Local"


def test_autoscaling_alone_decides_on_replicas() -> None:
    asked = [one["spec"].get("replicas") for one in objects(None, "Deployment").values()]
    fixed = [one["spec"]["replicas"] for one in objects(VALUES["nothing"], "Deployment").values()]

    assert set(asked) == {None}
    assert set(fixed) == {1}
    assert objects(VALUES["nothing"], "HorizontalPodAutoscaler") == {}


def test_autoscaling_goes_by_the_cpu_and_by_metrics_of_ours() -> None:
    metrics = [{"name": "whimbrel_sessions", "averageValue": "8000"}]
    values = {"services": {"gateway": {"autoscaling": {"metrics": metrics}}}}

    scaler = objects(values, "HorizontalPodAutoscaler")["gateway"]

    cpu, sessions = scaler["spec"]["metrics"]
    assert cpu["resource"]["name"] == "cpu"
    assert sessions["pods"]["metric"]["name"] == "whimbrel_sessions"
    assert sessions["pods"]["target"] == {"type": "AverageValue", "averageValue": "8000"}


def test_stores_are_made_ready_before_a_new_release_starts() -> None:
    jobs = objects(None, "Job")

    ran = {tuple(job["spec"]["template"]["spec"]["containers"][0]["args"]) for job in jobs.values()}
    hooks = {job["metadata"]["annotations"]["helm.sh/hook"] for job in jobs.values()}

    assert ran == {
        (f"svc_{name}", told["ready"]["command"]) for name, told in TABLE.items() if "ready" in told
    }
    assert hooks == {"pre-install,pre-upgrade"}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_a_hook_needs_nothing_that_the_release_makes_after_it(values) -> None:
    made = {
        one["metadata"]["name"]
        for one in rendered(values)
        if one["kind"] in {"ServiceAccount", "ConfigMap", "Secret"}
    } | {one["spec"]["secretName"] for one in objects(values, "Certificate").values()}

    for job in objects(values, "Job").values():
        spec = job["spec"]["template"]["spec"]
        needed = {volume["secret"]["secretName"] for volume in spec.get("volumes", ())}
        assert made.isdisjoint({*needed, spec.get("serviceAccountName")})


def test_one_release_is_not_taken_for_another() -> None:
    names = [
        {(one["kind"], one["metadata"]["name"]) for one in rendered(release=release)}
        for release in ("chat", "whimbrel", "whimbrel-canary")
    ]

    for one, other in itertools.combinations(names, 2):
        assert one.isdisjoint(other)


@pytest.mark.parametrize("values", ["everything", "an issuer that is there"])
def test_cert_manager_gives_each_service_the_name_by_which_others_know_it(values) -> None:
    certificates = objects(VALUES[values], "Certificate")
    known = {*objects(VALUES[values], "Issuer")} | {"mesh"}

    for name, spec in service_pods(VALUES[values]).items():
        wanted = certificates[name]["spec"]
        read = {
            (volume["secret"]["secretName"], item["key"])
            for volume in spec["volumes"]
            if volume["name"].startswith("tls-")
            for item in volume["secret"]["items"]
        }
        assert wanted["dnsNames"] == [identity(name)]
        assert read == {(wanted["secretName"], key) for key in ("tls.crt", "tls.key", "ca.crt")}
        assert {"server auth", "client auth"} <= set(wanted["usages"])
        assert wanted["issuerRef"]["name"].removeprefix("chat-whimbrel-") in known


def test_an_operator_is_certified_as_one_who_calls_if_that_is_asked_for() -> None:
    made = objects(VALUES["TLS through a Gateway"], "Certificate")["operator"]["spec"]

    assert "operator" not in objects(VALUES["everything"], "Certificate")
    assert made["dnsNames"] == [identity("operator")]
    assert made["usages"] == ["digital signature", "client auth"]
    assert made["issuerRef"]["name"] == "chat-whimbrel-authority"
    # No pod has it: whoever may read the Secret is an operator.
    assert made["secretName"] not in {
        volume["secret"]["secretName"]
        for spec in service_pods(VALUES["TLS through a Gateway"]).values()
        for volume in spec["volumes"]
    }
