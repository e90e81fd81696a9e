"""Sessions and routes: lost pushes heal, a flush heals, and the newest session stays."""

from typing import Any

from mesh.ids import new_ulid
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.fake_message import until
from whimbrel.error.v1 import reason_pb2

FAST = {
    "heads_interval": 0.3,
    "heads_interval_blind": 0.1,
    "canary_interval": 0.1,
    "heads_spread": 0.1,
}


def reason(device: Any) -> str:
    return reason_pb2.ErrorReason.Name(device.all("go_away")[0].reason)


async def test_a_session_is_registered_and_then_compared(edge: Edge) -> None:
    await edge.start()

    device = await edge.connect()
    await edge.message.service.until(lambda: edge.message.service.asked("fetch_heads"))

    assert edge.registry.entries == {(device.user_id, 1): (1, "gateway-under-test")}


async def test_what_was_pushed_before_the_registration_is_not_missed(edge: Edge) -> None:
    await edge.start()
    edge.message.service.drop_push = lambda event: True
    edge.message.service.before_heads = edge.store.put

    device = await edge.connect()

    await device.until(lambda: device.positions == [1])


async def test_every_push_that_is_lost_heals_by_the_comparison(edge: Edge) -> None:
    await edge.start(**FAST)
    edge.message.service.drop_push = lambda event: True
    alice, bob = await edge.connect(), await edge.connect()
    await until(lambda: len(edge.registry.entries) == 2)

    for _ in range(30):
        await alice.send(bob.user_id)
    await bob.until(lambda: bob.positions == list(range(1, 31)))
    await bob.ack(30)
    await alice.until(lambda: bool(alice.all("receipt")))

    assert alice.all("receipt")[-1].delivered[0].last == 30


async def test_a_broken_attach_stream_is_followed_by_a_comparison(edge: Edge) -> None:
    await edge.start(messages=2, heads_interval=1000, heads_spread=0.2)
    device = await edge.connect()
    await until(lambda: edge.registry.entries)
    edge.store.put((device.user_id, 1))
    await edge.message.stop()

    await device.until(lambda: device.positions == [1])


async def test_after_a_flush_all_routes_are_made_again(edge: Edge) -> None:
    await edge.start(canary_interval=0.1)
    devices = [await edge.connect() for _ in range(30)]
    await until(lambda: len(edge.registry.entries) == 30)

    edge.registry.flush()
    edge.store.put((devices[0].user_id, 1))

    # By renewals alone it would take a second each.
    await until(lambda: len(edge.registry.entries) == 30, within=10)
    await devices[0].until(lambda: devices[0].positions == [1])


async def test_while_redis_is_away_devices_connect_and_nothing_waits_long(edge: Edge) -> None:
    await edge.start(canary_interval=0.1, heads_interval=1000, heads_interval_blind=0.1)
    edge.registry.is_reachable = False
    device = await edge.connect()
    edge.store.put((device.user_id, 1))
    await device.until(lambda: device.positions == [1])

    edge.registry.is_reachable = True

    await until(lambda: (device.user_id, 1) in edge.registry.entries)


async def test_a_closed_session_leaves_the_registry(edge: Edge) -> None:
    await edge.start()
    device = await edge.connect()
    await until(lambda: edge.registry.entries)

    await device.half_close()

    await until(lambda: not edge.registry.entries)
    assert await device.ended() is None


async def test_routes_are_renewed(edge: Edge) -> None:
    await edge.start(registry_renewal=1)
    device = await edge.connect()
    await until(lambda: edge.registry.entries)

    edge.registry.entries.clear()  # without the canary: as if they had expired

    await until(lambda: (device.user_id, 1) in edge.registry.entries)


async def test_a_newer_stream_here_ends_the_older_one(edge: Edge) -> None:
    await edge.start()
    user_id = new_ulid()
    older = await edge.connect(user_id)

    newer = await edge.connect(user_id)

    failure = await older.ended()
    assert failure is not None
    assert failure.code().name == "ABORTED"
    assert reason(older) == "ERROR_REASON_STREAM_REPLACED"
    await until(lambda: list(edge.registry.entries.values()) == [(2, "gateway-under-test")])
    assert newer.kinds == ["welcome", "caught_up"]


async def test_an_older_session_that_opens_late_does_not_take_over(edge: Edge) -> None:
    await edge.start()
    newer = await edge.connect()
    row = edge.store.devices[newer.user_id, 1]
    row.epoch -= 2  # as if two openings had been answered in the other order

    older = edge.device(newer.user_id)
    older.listen()
    await older.say_hello()

    assert await older.ended() is not None
    assert reason(older) == "ERROR_REASON_STREAM_REPLACED"
    await until(lambda: len(edge.gateway.servicer.streams) == 1)
    assert len(edge.gateway.sessions) == 1
    assert newer.kinds == ["welcome", "caught_up"]


async def test_a_newer_session_elsewhere_ends_this_one_by_the_registry(edge: Edge) -> None:
    await edge.start(registry_renewal=1)
    device = await edge.connect()
    await until(lambda: edge.registry.entries)

    edge.registry.entries[device.user_id, 1] = (9, "gateway-elsewhere")

    assert await device.ended() is not None
    assert reason(device) == "ERROR_REASON_STREAM_REPLACED"
    assert edge.registry.entries[device.user_id, 1] == (9, "gateway-elsewhere")


async def test_a_newer_session_elsewhere_ends_this_one_by_the_heads(edge: Edge) -> None:
    await edge.start(**FAST)
    device = await edge.connect()

    edge.store.devices[device.user_id, 1].epoch += 1

    assert await device.ended() is not None
    assert reason(device) == "ERROR_REASON_STREAM_REPLACED"


async def test_a_revoked_device_ends_by_the_push(edge: Edge) -> None:
    await edge.start()
    device = await edge.connect()

    edge.message.service.push_end((device.user_id, 1), 2**63, "DEVICE_REVOKED")

    assert await device.ended() is not None
    assert reason(device) == "ERROR_REASON_DEVICE_REVOKED"
    assert not device.all("go_away")[0].HasField("reconnect_after")


async def test_a_revoked_device_ends_with_redis_away_and_the_push_lost(edge: Edge) -> None:
    await edge.start(canary_interval=0.1, heads_interval=1000, heads_interval_blind=0.1)
    device = await edge.connect()
    edge.registry.is_reachable = False

    edge.store.devices[device.user_id, 1].linked = False

    assert await device.ended(within=2) is not None
    assert reason(device) == "ERROR_REASON_DEVICE_REVOKED"


async def test_devices_that_reconnect_ten_times_end_registered_right(edge: Edge) -> None:
    await edge.start()
    users = [new_ulid() for _ in range(30)]

    for _ in range(10):
        devices = [await edge.connect(user_id) for user_id in users]

    expected = {(user_id, 1): (10, "gateway-under-test") for user_id in users}
    await until(lambda: edge.registry.entries == expected)
    await until(lambda: len(edge.gateway.sessions) == len(devices))
