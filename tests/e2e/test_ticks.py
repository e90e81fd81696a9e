"""What the metrics of a mesh say of messages, read where Prometheus reads them."""

import http.client
import urllib.request
from collections.abc import Iterator

import pytest

from mesh.ids import ulid_text
from tests.e2e.device import Device, a_send
from tests.e2e.meshes import lasting_mesh
from tests.e2e.people import register_all
from tests.e2e.scraping import value
from tests.faults.town import eventually
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.ports import free_port


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {"gateway": free_port(), "message": free_port()}


@pytest.fixture(scope="module")
def observed(ports: dict[str, int]) -> Iterator[Mesh]:
    """One gateway and one message instance, with their metrics shown."""
    env = {
        f"WHIMBREL_{name.upper()}_TELEMETRY__PROMETHEUS_PORT": str(port)
        for name, port in ports.items()
    }
    with lasting_mesh(gateways=1, message=1, env=env) as mesh:
        yield mesh


async def test_each_tick_of_a_message_is_timed_online_and_offline(
    observed: Mesh, ports: dict[str, int]
) -> None:
    [gateway], port = observed.gateway_addresses, ports["gateway"]
    one, other = await register_all(gateway, 2)

    def ticks(name: str, **labels: str) -> float:
        return max(0.0, value(port, f"whimbrel_{name}_seconds_count", **labels))

    async with Device(one, gateway) as sender:
        await sender.hello()
        await sender.accepted(a_send(other.user_id))
        async with Device(other, gateway) as reader:
            await reader.hello()
            await reader.until(lambda: len(reader.positions) == 1)
            await reader.ack(1)
            await sender.accepted(a_send(other.user_id))
            await reader.until(lambda: len(reader.positions) == 2)
            await reader.ack(2)
            await eventually(lambda: ticks("accepted_delivered", stream="online") == 1)
            await reader.read(one.user_id, 2)
            await reader.until(lambda: bool(reader.all("read_recorded")))

    assert ticks("sent_accepted") == 2
    assert ticks("accepted_delivered", stream="offline") == 1
    assert ticks("delivered_read") == 1
    batches = value(ports["message"], "whimbrel_batch_duration_seconds_count", kind="accept")
    assert batches == value(ports["message"], "whimbrel_batch_items_count", kind="accept") >= 2


async def test_what_waits_and_what_is_in_stock_is_told_of_each_shard(
    observed: Mesh, ports: dict[str, int]
) -> None:
    port = ports["message"]

    for shard in observed.shards:
        assert value(port, "whimbrel_shard_up", shard=shard) == 1
        await eventually(lambda s=shard: value(port, "whimbrel_outbox_pending", shard=s) == 0)
        assert value(port, "whimbrel_outbox_age_seconds", shard=shard) == 0
        assert value(port, "whimbrel_inbox_lag", shard=shard) >= 0
        for kind in ("ec", "kem"):
            assert value(port, "whimbrel_prekeys_stock", shard=shard, kind=kind) >= 0
    assert value(port, "whimbrel_gateways") == 1
    assert value(port, "whimbrel_waiting", kind="accept") == 0


async def test_metrics_name_nobody_and_are_not_where_devices_come_in(
    observed: Mesh, ports: dict[str, int]
) -> None:
    [gateway] = observed.gateway_addresses
    one, other = await register_all(gateway, 2)
    async with Device(one, gateway) as sender, Device(other, gateway) as reader:
        for device in (sender, reader):
            await device.hello()
        await sender.accepted(a_send(other.user_id, b"the canary sings"))
        await reader.until(lambda: len(reader.positions) == 1)
        await reader.ack(1)
        await sender.until(lambda: bool(sender.all("receipt")))
    pages = []
    for port in ports.values():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            pages.append(answer.read().lower())

    of_people = [
        form
        for account in (one, other)
        for form in (ulid_text(account.user_id), account.user_id.hex(), account.handle)
    ]
    for page in pages:
        assert b"whimbrel_" in page
        for form in (*of_people, "canary"):
            assert form.lower().encode() not in page
    devices = http.client.HTTPConnection(gateway, timeout=5)
    devices.request("GET", "/metrics")
    with pytest.raises((http.client.HTTPException, OSError)):
        devices.getresponse()
    devices.close()
