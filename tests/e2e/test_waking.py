"""A device that is away is woken: through the whole mesh, to the providers' simulators."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
import pytest

from tests.e2e.device import Device, a_send
from tests.e2e.meshes import lasting_mesh
from tests.e2e.people import Account, register
from whimbrel.push.v1 import push_pb2, push_pb2_grpc
from whimbrel_cli.providers.arrivals import short
from whimbrel_cli.stack.environment import pushes_file
from whimbrel_cli.stack.mesh import Mesh

_ENV = {"WHIMBREL_MESSAGE_PUSH_AFTER": "PT0.2S", "WHIMBREL_MESSAGE_PUSH_SWEEP": "PT1S"}
_SMALL = {"gateways": 1, "message": 1, "shards": 1, "push": 1}
_WITHIN = 20.0


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with lasting_mesh(
        **_SMALL,
        env_of={"message-1": _ENV, "push-1": {"WHIMBREL_PUSH_CLAIM_AFTER": "PT16S"}},
    ) as mesh:
        yield mesh


@dataclass
class Person:
    """Somebody with one device that has an APNs token."""

    mesh: Mesh
    account: Account
    apns: bytes

    @contextlib.asynccontextmanager
    async def online(self) -> AsyncIterator[Device]:
        async with Device(self.account, self.mesh.gateway_addresses[0]) as device:
            await device.hello()
            yield device

    async def read_all(self) -> None:
        """Come, take what is there, go."""
        async with self.online() as device:
            await device.until(lambda: bool(device.all("caught_up") or device.positions))
            while not device.all("caught_up"):
                await device.ack(device.positions[-1])
                await device.until(
                    lambda: bool(device.all("caught_up")) or device.positions[-1] > 0
                )

    async def call(self, ask, stub=push_pb2_grpc.PushServiceStub) -> object:
        async with grpc.aio.insecure_channel(self.mesh.gateway_addresses[0]) as channel:
            return await ask(stub(channel), self.account.metadata)

    def rings(self) -> list[dict]:
        """What the provider has got for this device, in order."""
        path = pushes_file(self.mesh.data)
        lines = path.read_text().splitlines() if path.exists() else []
        pushes = [json.loads(line) for line in lines]
        return [one for one in pushes if one["device"] == short(self.apns.hex())]

    async def rung(self, times: int) -> list[dict]:
        async with asyncio.timeout(_WITHIN):
            while len(self.rings()) < times:
                await asyncio.sleep(0.02)
        return self.rings()


async def a_person(mesh: Mesh) -> Person:
    person = Person(mesh, await register(mesh.gateway_addresses[0]), os.urandom(32))
    request = push_pb2.SetTokenRequest(apns=person.apns)
    await person.call(lambda stub, metadata: stub.SetToken(request, metadata=metadata))
    return person


async def say(device: Device, to: Person, *, urgent: bool = True) -> None:
    send = a_send(to.account.user_id, b"canary-body")
    send.urgent = urgent
    await device.send(send)
    await device.answer(send)


async def test_a_device_that_is_away_is_woken_once_until_it_has_been_there(mesh):
    sender, away = await a_person(mesh), await a_person(mesh)
    async with sender.online() as device:
        await say(device, away)
        [first] = await away.rung(1)
        await say(device, away)
        await say(device, away)
        await away.read_all()
        await say(device, away)
        rings = await away.rung(2)

    assert first["is_urgent"]
    assert "canary" not in json.dumps(rings)
    assert len(rings) == 2
    assert sender.rings() == []
