"""The balancer of examples/haproxy fits the gateways; tests marked soak start a real haproxy."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest

from mesh.health import Health
from mesh.server import CLIENT_LISTENER, HEALTH_LISTENER, bind, new_server, running
from svc_gateway.settings import Settings
from tests.deploy.chart import ROOT, environment, service_pods
from whimbrel_client import grpc_channel

CONFIG = (ROOT / "examples" / "haproxy" / "haproxy.cfg").read_text()


def _all(pattern: str) -> list[str]:
    return re.findall(pattern, CONFIG, re.MULTILINE)


def _seconds(timeout: str) -> timedelta:
    [seconds] = _all(rf"^ *timeout {timeout} (\d+)s$")
    return timedelta(seconds=int(seconds))


def _default(name: str) -> Any:
    return Settings.model_fields[name].default


def test_its_ports_are_those_of_the_gateways() -> None:
    port = _default("listen").rpartition(":")[2]
    told = environment(service_pods()["gateway"])["WHIMBREL_GATEWAY_HEALTH_LISTEN"]["value"]

    assert {*_all(r"^ *server \S+ \S+:(\d+)$"), *_all(r"^ *bind :(\d+)$")} == {port}
    assert _all(r"check port (\d+)") == [told.rpartition(":")[2]]


@pytest.mark.parametrize("side", ["client", "server"])
def test_no_stream_that_is_kept_alive_is_ended_for_its_silence(side) -> None:
    options = dict(grpc_channel._OPTIONS)
    client = options["grpc.keepalive_time_ms"] + options["grpc.keepalive_timeout_ms"]
    gateway = CLIENT_LISTENER.keepalive + CLIENT_LISTENER.keepalive_timeout

    assert _seconds(side) > max(gateway, timedelta(milliseconds=client))


def test_it_takes_as_many_connections_as_its_gateways_take_sessions() -> None:
    [most] = _all(r"^ *maxconn (\d+)$")

    assert int(most) > _default("max_sessions") * len(_all(r"^ *server "))


def test_devices_that_are_sent_away_are_not_taken_for_a_flood() -> None:
    """Those of one address; of a gateway's whole crowd no single address has so many."""
    [rate] = _all(r"sc0_conn_rate gt (\d+)")

    assert int(rate) >= 100


async def test_a_gateway_is_up_while_it_serves_and_down_as_soon_as_it_drains() -> None:
    health, server = Health(), new_server(HEALTH_LISTENER)
    health.add_to(server)
    address = bind(server, "127.0.0.1:0")
    async with running(server, timedelta()):
        before = await _answer_to_check(address)
        health.ready()
        serving = await _answer_to_check(address)
        health.draining()
        draining = await _answer_to_check(address)

    [expected] = map(bytes.fromhex, _all(r"expect binary (\w+)"))
    assert expected not in before
    assert expected in serving
    assert expected not in draining


async def _answer_to_check(address: str) -> bytes:
    """What comes back for the bytes that the check sends, until the call is over."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for sent in _all(r"send-binary (\w+)"):
            writer.write(bytes.fromhex(sent))
        heard = b""
        async with asyncio.timeout(10):
            while b"grpc-status" not in heard:
                heard += await reader.read(4096)
        return heard
    finally:
        writer.close()
        await writer.wait_closed()
