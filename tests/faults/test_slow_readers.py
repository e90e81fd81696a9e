"""A device that does not do its part is let go, and costs the gateway little until then."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psutil
import pytest

from tests.e2e.device import CHANNEL_OPTIONS, CONNECT, Device, a_send, reason_of
from tests.e2e.people import Account, register, register_all
from tests.faults.breaking import restarted
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel_cli.stack.mesh import Mesh

PATIENCE = 3
READERS = 20
BODY = b"x" * (192 * 1024)
MIB = 1024 * 1024


@pytest.fixture
async def impatient(mesh: Mesh) -> AsyncIterator[Mesh]:
    """A mesh whose first gateway waits for a device for 3 s in place of 30."""
    setting = {"WHIMBREL_GATEWAY_SLOW_CONSUMER": f"PT{PATIENCE}S"}
    async with restarted(mesh, "gateway-1", env=setting):
        yield mesh


async def test_a_device_that_reads_and_never_acknowledges_is_ended(impatient: Mesh) -> None:
    here, there = impatient.gateway_addresses
    one, other = await register_all(there, 2)
    async with Device(one, there) as sender, Device(other, here) as receiver:
        await sender.hello()
        await receiver.hello()
        began = asyncio.get_running_loop().time()
        sends = [a_send(other.user_id, b"%d" % number) for number in range(300)]
        for first in range(0, 300, 100):
            await sender.send(*sends[first : first + 100])

        assert await receiver.reason_of_end(within=PATIENCE + 7) == "SLOW_CONSUMER"
        lasted = asyncio.get_running_loop().time() - began

    assert lasted >= PATIENCE - 1
    assert receiver.positions == list(range(1, 257))


async def test_an_idle_device_is_not_slow(impatient: Mesh) -> None:
    here, there = impatient.gateway_addresses
    one, other = await register_all(there, 2)
    async with Device(one, there) as sender, Device(other, here) as receiver:
        await sender.hello()
        await receiver.hello()
        async with Device(await register(here), here) as lazy:
            await lazy.hello()
            await sender.accepted(a_send(lazy.user_id))
            assert await lazy.reason_of_end(within=PATIENCE + 7) == "SLOW_CONSUMER"

        await sender.accepted(a_send(other.user_id))
        await receiver.delivered(1)

    assert receiver.go_away is None


async def test_devices_that_read_nothing_are_ended_and_memory_stays_bounded(
    impatient: Mesh,
) -> None:
    here, there = impatient.gateway_addresses
    gateway = psutil.Process(impatient.pid_of("gateway-1"))
    deaf = await register_all(there, READERS)
    async with contextlib.AsyncExitStack() as opened:
        sender = await opened.enter_async_context(Device(await register(there), there))
        await sender.hello()
        before = gateway.memory_info().rss
        calls = [await opened.enter_async_context(reads_nothing(one, here)) for one in deaf]
        most = before
        for _ in range(7):
            for one in deaf:
                await sender.accepted(a_send(one.user_id, BODY))
            most = max(most, gateway.memory_info().rss)
        reasons = [await asyncio.wait_for(reason_of_end(call), PATIENCE + 10) for call in calls]

    assert reasons == ["SLOW_CONSUMER"] * READERS
    # Each may hold a mebibyte unacknowledged, and as much again on its way to the socket.
    assert most - before < READERS * 3 * MIB


@contextlib.asynccontextmanager
async def reads_nothing(account: Account, gateway: str) -> AsyncIterator[Any]:
    """A stream whose device says hello and then sleeps."""
    async with grpc.aio.insecure_channel(gateway, options=CHANNEL_OPTIONS) as channel:
        call: Any = channel.stream_stream(CONNECT)(metadata=account.metadata)
        hello = gateway_pb2.DeviceEvent(hello=gateway_pb2.Hello())
        await call.write(gateway_pb2.ConnectRequest(events=[hello]).SerializeToString())
        yield call
        call.cancel()


async def reason_of_end(call: Any) -> str:
    """Read at last, and learn how it ended."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""
