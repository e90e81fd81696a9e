import asyncio
from datetime import timedelta

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.errors import Unavailable
from mesh.health import Health, check
from mesh.server import INTERNAL_LISTENER, bind, new_server, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def health():
    return Health()


@pytest.fixture
async def channel(health):
    server = new_server(INTERNAL_LISTENER)
    health.add_to(server)
    address = bind(server, "127.0.0.1:0")
    async with running(server, timedelta()), grpc.aio.insecure_channel(address) as channel:
        yield channel


async def test_an_instance_is_ready_between_its_start_and_its_drain(health, channel):
    assert not await check(channel)
    health.ready()
    assert await check(channel)
    health.draining()
    assert not await check(channel)

    health.ready()

    assert not await check(channel)


async def test_a_dependency_that_is_down_shows_by_name_and_leaves_readiness_alone(health, channel):
    health.ready()

    health.dependency("shard/a", is_well=False)
    health.dependency("redis", is_well=True)

    assert await check(channel)
    assert not await check(channel, "shard/a")
    assert await check(channel, "redis")
    assert health.states == {"": True, "shard/a": False, "redis": True}


async def test_an_entry_that_nobody_told_of_is_not_found(channel):
    stub = health_pb2_grpc.HealthStub(channel)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="unknown"))

    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert not await check(channel, "unknown")


async def test_who_watches_is_told_each_change(health, channel):
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="redis")
    )

    assert (await watch.read()).status == SERVICE_UNKNOWN
    health.dependency("redis", is_well=True)
    assert (await watch.read()).status == SERVING
    health.dependency("etcd", is_well=True)
    health.dependency("redis", is_well=False)
    assert (await watch.read()).status == NOT_SERVING

    watch.cancel()


async def test_a_server_that_takes_the_call_and_does_not_answer_is_unavailable():
    class Stuck(Health):
        async def Check(self, _request, _context):
            await asyncio.Event().wait()

    server = new_server(INTERNAL_LISTENER)
    Stuck().add_to(server)
    address = bind(server, "127.0.0.1:0")

    async with running(server, timedelta()), grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(Unavailable):
            await check(channel, within=0.2)


def test_the_overall_entry_is_no_dependency(health):
    with pytest.raises(ValueError, match="overall"):
        health.dependency("", is_well=True)
