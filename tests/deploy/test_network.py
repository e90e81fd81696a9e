"""Who may talk to whom: one table, which agrees with the protos and the code, and the policies."""

import importlib
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf import descriptor_pool

from mesh.access import Access, Caller, access_of
from tests.deploy.chart import COMPONENT, ROOT, SETTINGS, TABLE, VALUES, objects

_DNS = frozenset({("UDP", 53), ("TCP", 53)})
_ANYWHERE = "anywhere"
# A setting that tells of a store, and the store.
_SIGNS = {
    "etcd": "etcd",
    "redis_url": "redis",
    "shards": "postgres",
    "database": "postgres",
    "s3_endpoint": "s3",
    "kafka": "kafka",
    "codes_webhook": "webhook",
    "apns_url": "providers",
}


def _accesses() -> list[Access]:
    """What the protos say of every rpc that a service of the mesh answers another."""
    pool = descriptor_pool.Default()
    accesses = []
    for proto in (ROOT / "proto").rglob("*.proto"):
        name = str(proto.relative_to(ROOT / "proto"))
        importlib.import_module(f"{name.removesuffix('.proto').replace('/', '.')}_pb2")
        for service in pool.FindFileByName(name).services_by_name.values():
            accesses += [one for one in access_of(service).values() if one.answered_by]
    return accesses


def test_the_table_has_the_calls_that_the_protos_allow_and_no_other() -> None:
    accesses = _accesses()

    for caller, told in TABLE.items():
        allowed = {one.answered_by for one in accesses if one.admits(caller)}
        assert set(told["calls"]) == allowed, caller
        hears_teams = any(
            one.answered_by == caller and Caller.TEAM in one.callers for one in accesses
        )
        assert told.get("hasTeams", False) == hears_teams, caller


@pytest.mark.parametrize("name", SETTINGS)
def test_the_table_has_the_stores_that_the_settings_tell_of(name) -> None:
    fields = SETTINGS[name].model_fields

    assert set(TABLE[name]["stores"]) == {_SIGNS[field] for field in fields if field in _SIGNS}
    assert SETTINGS[name].model_fields["listen"].default.endswith(f":{TABLE[name]['port']}")


@pytest.mark.parametrize("values", [VALUES["defaults"], VALUES["everything"]])
def test_both_ends_allow_the_calls_of_the_table_and_no_other(values) -> None:
    policies = objects(values, "NetworkPolicy")
    expected = {
        (caller, callee, TABLE[callee]["port"])
        for caller, told in TABLE.items()
        for callee in told["calls"]
    }

    entered = {
        (caller, callee, port)
        for callee in TABLE
        for caller, port in _pods(policies[callee]["spec"]["ingress"], "from")
    }
    left = {
        (caller, callee, port)
        for caller in TABLE
        for callee, port in _pods(policies[caller]["spec"]["egress"], "to")
        if callee in TABLE
    }

    assert entered == left == expected


def test_stores_of_the_chart_are_entered_by_who_uses_them() -> None:
    policies = objects(VALUES["everything"], "NetworkPolicy")

    for store, port in (("redis", 6379), ("etcd", 2379)):
        users = {(name, port) for name, told in TABLE.items() if store in told["stores"]}
        peers = {("etcd", 2380)} if store == "etcd" else set()
        assert set(_pods(policies[store]["spec"]["ingress"], "from")) == users | peers
        for name, _ in users:
            assert (store, port) in _pods(policies[name]["spec"]["egress"], "to")


@pytest.mark.parametrize("has_pooler", [False, True])
def test_a_postgres_of_the_chart_is_the_only_one_that_is_reached(has_pooler) -> None:
    past = {"direct_shards": {"secret": "past", "key": "it"}}
    values = {
        "stores": {
            "postgres": {"enabled": True, "clusters": ["a", "b"], "pooler": {"enabled": has_pooler}}
        },
        "services": {
            "message": {"files": past},
            "push": {"enabled": False},
            "media": {"enabled": False},
        },
    }
    policies = objects(values, "NetworkPolicy")
    wanted = {"cnpg.io/cluster": ["chat-whimbrel-a", "chat-whimbrel-b"]}
    if has_pooler:
        wanted["cnpg.io/poolerName"] = ["chat-whimbrel-a-pooler", "chat-whimbrel-b-pooler"]

    for name in ("message", "message-migration"):
        [rule] = [
            rule
            for rule in policies[name]["spec"]["egress"]
            if {"port": 5432, "protocol": "TCP"} in rule["ports"]
        ]
        selected = [one["podSelector"]["matchExpressions"] for one in rule["to"]]
        assert {one["key"]: one["values"] for [one] in selected} == wanted

    made = {*objects(values, "Cluster"), *objects(values, "Pooler")}
    assert made == {one.removeprefix("chat-whimbrel-") for of in wanted.values() for one in of}


def test_by_default_nothing_leaves_but_to_stores_and_names() -> None:
    ports = {"etcd": 2379, "redis": 6379, "postgres": 5432, "s3": 443, "providers": 443}
    policies = objects(None, "NetworkPolicy")

    for name, told in TABLE.items():
        left = _outside(policies[name]["spec"]["egress"], "to")
        used = {frozenset({("TCP", ports[store])}) for store in told["stores"] if store in ports}
        assert left == {(one, _ANYWHERE) for one in used | {_DNS}}
        if "ready" in told:
            left = _outside(policies[f"{name}-migration"]["spec"]["egress"], "to")
            used = {frozenset({("TCP", ports[store])}) for store in told["ready"]["stores"]}
            assert left == {(one, _ANYWHERE) for one in used | {_DNS}}
            assert "ingress" not in policies[f"{name}-migration"]["spec"]


def test_by_default_devices_come_to_gateways_only_and_prometheus_to_all() -> None:
    policies = objects(None, "NetworkPolicy")

    for name in TABLE:
        entered = _outside(policies[name]["spec"]["ingress"], "from")
        devices = {(frozenset({("TCP", 50051)}), _ANYWHERE)} if name == "gateway" else set()
        assert entered == {(frozenset({("TCP", 9464)}), _ANYWHERE)} | devices


def test_peers_that_are_named_are_the_only_ones() -> None:
    policies = objects(VALUES["everything"], "NetworkPolicy")
    metrics, teams = frozenset({("TCP", 9464)}), "{'name': 'teams'}"

    for name, told in TABLE.items():
        entered = dict(_outside(policies[name]["spec"]["ingress"], "from"))
        assert "{'name': 'monitoring'}" in entered.pop(metrics)
        if told.get("isPublic"):
            assert "192.0.2.0/24" in entered.pop(frozenset({("TCP", told["port"])}))
        if told.get("hasTeams"):
            assert teams in entered.pop(frozenset({("TCP", told["port"])}))
        assert entered == {}


def test_what_is_optional_opens_its_port_when_it_is_there() -> None:
    policies = objects(VALUES["everything"], "NetworkPolicy")

    left = dict(_outside(policies["message"]["spec"]["egress"], "to"))

    assert left[frozenset({("TCP", 9093)})] == _ANYWHERE
    assert "198.51.100.7/32" in left[frozenset({("TCP", 443)})]
    assert left[frozenset({("TCP", 4317)})] == _ANYWHERE


def test_pods_of_the_mesh_are_under_a_policy_for_both_ways() -> None:
    policies = objects(None, "NetworkPolicy")

    assert set(TABLE) <= set(policies)
    for policy in policies.values():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def _pods(rules: list[Mapping[str, Any]], side: str) -> set[tuple[str, int]]:
    """The components of this release that the rules name, each with the port."""
    return {
        (peer["podSelector"]["matchLabels"][COMPONENT], port["port"])
        for rule in rules
        for peer in rule.get(side, ())
        if "matchLabels" in peer.get("podSelector", {}) and set(peer) == {"podSelector"}
        for port in rule["ports"]
    }


def _outside(rules: list[Mapping[str, Any]], side: str) -> set[tuple[frozenset[Any], str]]:
    """The ports of all other rules, and which peers they name, as text."""
    return {
        (
            frozenset((port["protocol"], port["port"]) for port in rule["ports"]),
            str(rule.get(side, _ANYWHERE)),
        )
        for rule in rules
        if not any(set(peer) == {"podSelector"} for peer in rule.get(side, ()))
    }
