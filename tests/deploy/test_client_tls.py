"""Who ends the devices' TLS: what the chart makes of it, and what gateways make of the chart."""

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

from mesh.settings import load
from svc_gateway.settings import Settings
from tests.deploy.chart import (
    CLIENT_TLS,
    VALUES,
    Object,
    environment,
    objects,
    rendered,
    service_pods,
)
from tests.deploy.keys import as_in_a_pod


def _named(way: Object) -> str:
    return way.get("public", {}).get("type") or way["gatewayApi"]["route"]


_ROUTE = {"parentRefs": [{"name": "edge"}], "hostnames": ["chat.example.org"]}
# Each way by which devices come in, by whether the gateways end their TLS.
_WAYS: list[tuple[Object, bool]] = [
    ({"public": {"type": kind}, "gatewayApi": {"enabled": False}}, ends)
    for kind, ends in itertools.product(["ClusterIP", "NodePort", "LoadBalancer"], [False, True])
] + [
    ({"gatewayApi": {**_ROUTE, "enabled": True, "route": "GRPCRoute"}}, False),
    ({"gatewayApi": {**_ROUTE, "enabled": True, "route": "TLSRoute"}}, True),
]
_EVERY_WAY = [
    pytest.param(name, way, ends, id=f"{name}, {_named(way)}, {'TLS' if ends else 'plaintext'}")
    for name in ("defaults", "everything", "nothing")
    for way, ends in _WAYS
]


def _values(name: str, way: Object, *, ends: bool) -> Object:
    told = {"services": {"gateway": {"files": CLIENT_TLS}}} if ends else {}
    return _merged(_merged(VALUES[name], way), told)


def _merged(one: Any, other: Any) -> Any:
    """Both, as Helm takes one file of values after another."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return copy.deepcopy(other)
    return {
        **one,
        **{key: _merged(one[key], it) if key in one else it for key, it in other.items()},
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of all the pods are."""
    return tmp_path_factory.mktemp("mounted")


@pytest.mark.parametrize(("name", "way", "ends"), _EVERY_WAY)
def test_gateways_end_tls_where_they_are_given_a_certificate_and_nowhere_else(
    name, way, ends, files, monkeypatch
) -> None:
    told = environment(service_pods(_values(name, way, ends=ends))["gateway"])

    for variable, value in told.items():
        monkeypatch.setenv(variable, as_in_a_pod("gateway", value, files))

    assert load(Settings).client_tls.is_plaintext is not ends


@pytest.mark.parametrize(("name", "way", "ends"), _EVERY_WAY)
def test_kubernetes_is_told_what_is_spoken_where_devices_come_in(name, way, ends) -> None:
    services = objects(_values(name, way, ends=ends), "Service")

    spoken = {
        port["appProtocol"]
        for service in ("public", "gateway")
        for port in services[service]["spec"]["ports"]
        if port["name"] == "grpc"
    }

    assert spoken == {"https" if ends else "kubernetes.io/h2c"}


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
@pytest.mark.parametrize("name", ["defaults", "everything", "nothing"])
def test_tls_changes_neither_who_may_come_in_nor_what_probes_ask(name, kind) -> None:
    way = {"public": {"type": kind}, "gatewayApi": {"enabled": False}}
    plain, ended = (_values(name, way, ends=ends) for ends in (False, True))

    containers = [service_pods(values)["gateway"]["containers"][0] for values in (plain, ended)]

    assert objects(plain, "NetworkPolicy") == objects(ended, "NetworkPolicy")
    for what in ("ports", "startupProbe", "readinessProbe", "livenessProbe"):
        assert containers[0][what] == containers[1][what]


@pytest.mark.parametrize("ends", [False, True])
def test_a_route_leads_to_where_devices_come_in(ends) -> None:
    kind = "TLSRoute" if ends else "GRPCRoute"
    values = _values(
        "defaults", {"gatewayApi": {**_ROUTE, "enabled": True, "route": kind}}, ends=ends
    )

    [route] = [one for one in rendered(values) if one["kind"].endswith("Route")]

    assert (route["apiVersion"], route["kind"]) == ("gateway.networking.k8s.io/v1", kind)
    assert route["spec"]["hostnames"] == _ROUTE["hostnames"]
    [backend] = route["spec"]["rules"][0]["backendRefs"]
    public = objects(values, "Service")["public"]
    assert backend["name"] == public["metadata"]["name"]
    assert backend["port"] == public["spec"]["ports"][0]["port"]
