"""How long a list of devices is gone by."""

import asyncio
from datetime import timedelta

from mesh.clock import SystemClock
from mesh.ids import random_id
from mesh.telemetry import OFF
from svc_message.device_lists import DeviceLists
from svc_message.model import Outcome
from svc_message.results import DevicesResult
from svc_message.sending import read_send
from whimbrel.message.v1 import send_pb2

FRESH = timedelta(milliseconds=50)


class SlowStore:
    """Reads the lists at once, and is long about telling them."""

    def __init__(self) -> None:
        self.has_read = asyncio.Event()
        self.may_tell = asyncio.Event()

    async def linked_devices(self, requests):
        self.has_read.set()
        await self.may_tell.wait()
        return [DevicesResult(Outcome.DONE, {1: 7}) for _ in requests]


async def test_a_list_ages_while_it_is_on_its_way(shards):
    store, loop = SlowStore(), asyncio.get_running_loop()
    lists = DeviceLists(shards, dict.fromkeys(shards.names, store), fresh=FRESH, telemetry=OFF)
    message = send_pb2.Send(client_message_id=random_id(), user_id=random_id())
    message.per_device.bodies.add(user_id=message.user_id, device_id=1, registration_id=7)
    message.first_tried_at.FromDatetime(SystemClock().now())
    message.per_device.bodies[0].type = send_pb2.CIPHERTEXT_TYPE_RATCHET
    message.per_device.bodies[0].ciphertext = b"hello"
    send = read_send(message, random_id(), 1, SystemClock().now(), None)
    running, told = asyncio.create_task(lists.run()), loop.create_future()

    lists.fetch(send, told.set_result)
    await store.has_read.wait()
    stale_at = loop.time() + FRESH.total_seconds()
    while loop.time() <= stale_at:
        await asyncio.sleep(0)
    store.may_tell.set()

    assert await told is None
    assert not lists.compare(send)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
