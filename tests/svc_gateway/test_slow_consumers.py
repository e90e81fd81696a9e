"""A device that does not do its part is sent away, and holds nothing while it is there."""

import grpc

from mesh.errors import failure_of
from mesh.ids import new_ulid
from svc_gateway.window import KIB
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.fake_message import until

# A peer that grants the server 64 KiB and no more until it reads.
_NARROW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * KIB)]


async def test_a_device_that_acks_nothing_ends_as_a_slow_consumer(edge: Edge) -> None:
    await edge.start(slow_consumer=2)
    device = await edge.connect()
    edge.store.put((device.user_id, 1))
    edge.gateway.heads.compare(edge.gateway.sessions)
    await device.until(lambda: device.positions == [1])

    failure = await device.ended()

    assert failure is not None
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure_of(failure).reason == "SLOW_CONSUMER"
    assert device.kinds[-1] == "go_away"


async def test_a_device_that_reads_nothing_is_sent_away_though_its_stream_is_blocked(
    edge: Edge,
) -> None:
    await edge.start(slow_consumer=2)
    user_id = new_ulid()
    for _ in range(6):
        edge.store.put((user_id, 1), b"x" * 160 * KIB)
    device = edge.device(user_id, options=_NARROW)

    await device.say_hello()
    await until(lambda: len(edge.gateway.servicer.streams) == 1)

    await until(lambda: not edge.gateway.servicer.streams)
    assert edge.gateway.edge.budget.used == 0


async def test_an_idle_device_stays(edge: Edge) -> None:
    await edge.start(slow_consumer=1)
    device = await edge.connect()

    for _ in range(5):
        edge.gateway.sessions.tick()
    await edge.message.service.until(lambda: True)

    assert device.kinds == ["welcome", "caught_up"]
    assert len(edge.gateway.sessions) == 1
