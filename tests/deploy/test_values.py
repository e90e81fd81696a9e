"""Helm tells of a value that cannot be meant, by its place."""

import pytest
from helm_python import Chart
from helm_python.errors import HelmError

from tests.deploy.chart import CHART, CLIENT_TLS, rendered

_SECRET = {"secret": "whimbrel-clients", "key": "it"}
_GATEWAY = {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["chat.example.org"]}
_WRONG = {
    "no such value": ({"replicas": 3}, "'replicas' not allowed"),
    "no such service": ({"services": {"gatway": {}}}, "'gatway' not allowed"),
    "no such knob": ({"services": {"push": {"replica": 3}}}, "'replica' not allowed"),
    "no number": ({"defaults": {"replicas": "three"}}, "at '/defaults/replicas'"),
    "no span": ({"services": {"media": {"drainSeconds": 0}}}, "at '/services/media/drainSeconds'"),
    "no image": ({"image": {"repository": ""}}, "at '/image/repository'"),
    "no digest": ({"image": {"digest": "latest"}}, "at '/image/digest'"),
    "no address": ({"etcd": {"address": "http://etcd:2379"}}, "at '/etcd/address'"),
    "no port": ({"public": {"port": 70000}}, "at '/public/port'"),
    "no type": ({"public": {"type": "External"}}, "at '/public/type'"),
    "no share": ({"telemetry": {"sampled": 5}}, "at '/telemetry/sampled'"),
    "no quantity": (
        {"defaults": {"resources": {"limits": {"memory": "2 GB"}}}},
        "at '/defaults/resources/limits/memory'",
    ),
    "no reference": (
        {"services": {"gateway": {"secrets": {"redis_url": "redis://here"}}}},
        "at '/services/gateway/secrets/redis_url'",
    ),
    "half a reference": (
        {"services": {"message": {"files": {"codes": {"secret": "codes"}}}}},
        "missing property 'key'",
    ),
    "no setting": (
        {"services": {"gateway": {"settings": {"WHIMBREL_GATEWAY_ZONE": "a"}}}},
        "invalid propertyName 'WHIMBREL_GATEWAY_ZONE'",
    ),
    "no peer": ({"networkPolicy": {"clients": [{}]}}, "at '/networkPolicy/clients/0'"),
    "no Gateway": ({"gatewayApi": {"enabled": True}}, "at '/gatewayApi/parentRefs'"),
    "no route": (
        {"gatewayApi": {"route": "TCPRoute"}},
        "at '/gatewayApi/route'",
    ),
    "no name to go by": (
        {"gatewayApi": {"enabled": True, "route": "TLSRoute", "parentRefs": [{"name": "edge"}]}},
        "at '/gatewayApi/hostnames'",
    ),
    "nothing to pass through to": (
        {"gatewayApi": {**_GATEWAY, "route": "TLSRoute"}},
        "gatewayApi.route: TLSRoute needs services.gateway.files: client_tls__certificate",
    ),
    "TLS ended twice": (
        {"gatewayApi": _GATEWAY, "services": {"gateway": {"files": CLIENT_TLS}}},
        "gatewayApi.route: GRPCRoute reaches gateways in plaintext",
    ),
    "half of a certificate": (
        {"services": {"gateway": {"files": {"client_tls__certificate": _SECRET}}}},
        "at '/services/gateway/files'",
    ),
    "half of a key": (
        {"services": {"gateway": {"files": {"client_tls__key": _SECRET}}}},
        "at '/services/gateway/files'",
    ),
    "nobody to certify the operator": (
        {"certManager": {"operator": True}},
        "at '/certManager/enabled'",
    ),
    "no way past the pooler": (
        {"stores": {"postgres": {"enabled": True, "pooler": {"enabled": True}}}},
        "stores.postgres.pooler needs services.media: direct_database",
    ),
    "no prepared statements": (
        {"stores": {"postgres": {"pooler": {"parameters": {"max_prepared_statements": "0"}}}}},
        "at '/stores/postgres/pooler/parameters/max_prepared_statements'",
    ),
    "no issuer": (
        {"certManager": {"issuer": {"kind": "Authority"}}},
        "at '/certManager/issuer/kind'",
    ),
    "no duration": ({"certManager": {"duration": "90d"}}, "at '/certManager/duration'"),
    "no metric": (
        {"defaults": {"autoscaling": {"external": [{"name": "whimbrel_inbox_lag"}]}}},
        "missing property 'averageValue'",
    ),
    "no metrics": (
        {"serviceMonitor": {"enabled": True}, "telemetry": {"prometheusPort": 0}},
        "serviceMonitor.enabled needs telemetry.prometheusPort",
    ),
}


@pytest.mark.parametrize(("values", "told"), _WRONG.values(), ids=_WRONG.keys())
def test_a_wrong_value_is_refused_by_its_name(values, told) -> None:
    with pytest.raises(HelmError) as refused:
        rendered(values)

    assert told in str(refused.value)


def test_all_wrong_values_are_told_at_once() -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmError) as refused:
        chart.validate_schema({"preStopSeconds": 0, "image": {"tag": 1}, "colour": "red"})

    for place in ("/preStopSeconds", "/image/tag", "'colour'"):
        assert place in str(refused.value)
