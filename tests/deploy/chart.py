"""The chart rendered by Helm itself, and what the tests of this folder ask of it."""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

from mesh.settings import Settings
from svc_gateway.settings import Settings as Gateway
from svc_media.settings import Settings as Media
from svc_message.settings import Settings as Message
from svc_presence.settings import Settings as Presence
from svc_push.settings import Settings as Push

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "whimbrel"
TABLE: Mapping[str, Any] = yaml.safe_load((CHART / "files" / "mesh.yaml").read_text())
SETTINGS: Mapping[str, type[Settings]] = {
    "gateway": Gateway,
    "media": Media,
    "message": Message,
    "presence": Presence,
    "push": Push,
}
COMPONENT = "app.kubernetes.io/component"

Object = dict[str, Any]

_STORES = {
    "valkey": {"enabled": True},
    "etcd": {"enabled": True},
    "postgres": {"enabled": True, "pooler": {"enabled": True}},
}
_DIRECT = {"direct_database": {"secret": "direct", "key": "database"}}
_OF_CERT_MANAGER = {"certificate": "tls.crt", "key": "tls.key", "ca": "ca.crt"}
_SCRAPING = {
    "serverName": "metrics.whimbrel",
    "ca": {"secret": {"name": "prometheus-tls", "key": "ca.crt"}},
    "cert": {"secret": {"name": "prometheus-tls", "key": "tls.crt"}},
    "keySecret": {"name": "prometheus-tls", "key": "tls.key"},
}
CLIENT_TLS = {
    f"client_tls__{name}": {"secret": "whimbrel-clients", "key": key}
    for name, key in (("certificate", "tls.crt"), ("key", "tls.key"))
}
# What is rendered in the tests: every switch is turned in one of them.
VALUES: Mapping[str, Object] = {
    "defaults": {},
    "everything": {
        "image": {"digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": ["registry"],
        "telemetry": {"otlpEndpoint": "http://collector:4317"},
        "defaults": {
            "autoscaling": {
                "metrics": [{"name": "whimbrel_waiting", "averageValue": 100}],
                "external": [
                    {
                        "name": "whimbrel_inbox_lag",
                        "matchLabels": {"shard": "a"},
                        "averageValue": "100000",
                    }
                ],
            },
            "files": {
                "etcd_tls__ca": {"secret": "etcd-tls", "key": "ca.pem"},
                **{
                    f"telemetry__prometheus_tls__{file}": {"secret": "metrics-tls", "key": key}
                    for file, key in _OF_CERT_MANAGER.items()
                },
            },
            "podAnnotations": {"example.org/team": "chat"},
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "chat", "operator": "Exists"}],
            "priorityClassName": "high",
        },
        "services": {
            "message": {
                "settings": {"registration": "code", "events__is_on": True},
                "files": {
                    "direct_shards": {"secret": "direct", "key": "shards.json"},
                    "postgres_tls__ca": {"secret": "postgres-tls", "key": "ca.pem"},
                },
                "secrets": {
                    "codes_webhook": {"secret": "codes", "key": "url"},
                    "codes_webhook_secret": {"secret": "codes", "key": "secret"},
                },
            },
            "media": {"settings": {"quota": 107374182400, "s3_in_path": True}, "secrets": _DIRECT},
            "push": {"secrets": _DIRECT},
        },
        "public": {
            "type": "LoadBalancer",
            "annotations": {"example.org/tls": "yes"},
            "loadBalancerClass": "example.org/l4",
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
        },
        "certManager": {"enabled": True},
        "gatewayApi": {
            "enabled": True,
            "parentRefs": [{"name": "edge", "namespace": "edge", "sectionName": "grpc"}],
            "hostnames": ["chat.example.org"],
        },
        "networkPolicy": {
            "clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
            "monitoring": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "teams": [{"namespaceSelector": {"matchLabels": {"name": "teams"}}}],
            "stores": {
                "kafka": {"ports": [9093]},
                "webhook": {"ports": [443], "to": [{"ipBlock": {"cidr": "198.51.100.7/32"}}]},
            },
        },
        "serviceMonitor": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "tlsConfig": _SCRAPING,
        },
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
        "stores": _STORES,
    },
    "nothing": {
        "telemetry": {"prometheusPort": 0},
        "defaults": {
            "autoscaling": {"enabled": False},
            "disruptionBudget": {"enabled": False},
            "replicas": 1,
        },
        "public": {"type": "NodePort"},
        "migration": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "messaging alone": {
        "services": {name: {"enabled": False} for name in ("presence", "push", "media")},
    },
    "an issuer that is there": {
        "certManager": {"enabled": True, "issuer": {"name": "mesh", "kind": "ClusterIssuer"}},
    },
    "TLS to the gateways": {
        "services": {"gateway": {"files": CLIENT_TLS}},
        "public": {"type": "LoadBalancer"},
    },
    "TLS through a Gateway": {
        "services": {"gateway": {"files": CLIENT_TLS}},
        "certManager": {"enabled": True, "operator": True},
        "gatewayApi": {
            "enabled": True,
            "route": "TLSRoute",
            "parentRefs": [{"name": "edge", "namespace": "edge", "sectionName": "tls"}],
            "hostnames": ["chat.example.org", "*.chat.example.org"],
        },
    },
    "one Postgres": {
        "stores": {
            "postgres": {
                "enabled": True,
                "clusters": ["all"],
                "instances": 1,
                "parameters": {"max_connections": "400"},
                "storageClass": "fast",
                "image": "postgresql:17",
            }
        },
    },
}


def rendered(values: Mapping[str, Any] | None = None, *, release: str = "chat") -> list[Object]:
    """The objects that `helm install chat` would make. Raises HelmValuesError, HelmRenderError."""
    made: list[Object] = json.loads(_rendered(json.dumps(values or {}), release))
    return made


def objects(values: Mapping[str, Any] | None, kind: str) -> dict[str, Object]:
    """Those of one kind, by name without the release's."""
    return {
        one["metadata"]["name"].removeprefix("chat-whimbrel-"): one
        for one in rendered(values)
        if one["kind"] == kind
    }


def pods(values: Mapping[str, Any] | None = None) -> Iterator[tuple[str, Object]]:
    """Each template of pods: what it is of, and the template."""
    for one in rendered(values):
        if one["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield one["metadata"]["name"].removeprefix("chat-whimbrel-"), one["spec"]["template"]


def service_pods(values: Mapping[str, Any] | None = None) -> dict[str, Object]:
    """The specs of the pods of our own services, by service."""
    return {name: pod["spec"] for name, pod in pods(values) if name in SETTINGS}


def environment(pod: Object) -> dict[str, Object]:
    """The first container's environment: each variable as Kubernetes has it, by name."""
    return {variable["name"]: variable for variable in pod["containers"][0]["env"]}


@functools.cache
def _rendered(values: str, release: str) -> str:
    with Chart.load(CHART) as chart:
        manifests = chart.render(json.loads(values), name=release, namespace="chat")
    return json.dumps(
        [
            one
            for name, text in manifests.items()
            if not name.endswith(".txt")
            for one in yaml.load_all(text, Loader=yaml.CSafeLoader)
            if one
        ]
    )
