"""A device that is away is woken: through the whole mesh, to the providers' simulators."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import asyncpg
import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner, Result

from mesh.clock import SystemClock
from mesh.redis import open_redis
from tests.e2e.device import Device, a_send
from tests.e2e.meshes import lasting_mesh
from tests.e2e.people import Account, register
from tests.e2e.scraping import value
from tests.faults.town import eventually
from tests.whimbrel_client.test_talking import received
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel.message.v1 import send_pb2
from whimbrel.push.v1 import push_pb2, push_pb2_grpc
from whimbrel_cli.main import app
from whimbrel_cli.providers.arrivals import Arrivals, short
from whimbrel_cli.providers.credentials import Credentials
from whimbrel_cli.providers.http import Http2Server
from whimbrel_cli.providers.webpush import SimulatedWebPush
from whimbrel_cli.pushes import arrived, simulated_token
from whimbrel_cli.stack.environment import pushes_file
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.ports import free_port
from whimbrel_client import Client, Protection

_ENV = {"WHIMBREL_MESSAGE_PUSH_AFTER": "PT0.2S", "WHIMBREL_MESSAGE_PUSH_SWEEP": "PT1S"}
# Long before the default, and no test has a provider that takes long.
_PUSH = {"WHIMBREL_PUSH_CLAIM_AFTER": "PT2S", "WHIMBREL_PUSH_LOG_LEVEL": "DEBUG"}
_SMALL = {"gateways": 1, "message": 1, "shards": 1, "push": 1}
_WITHIN = 20.0


@pytest.fixture(scope="module")
def metrics() -> int:
    return free_port()


@pytest.fixture(scope="module")
def mesh(metrics: int) -> Iterator[Mesh]:
    observed = {"WHIMBREL_MESSAGE_TELEMETRY__PROMETHEUS_PORT": str(metrics)}
    with lasting_mesh(
        **_SMALL,
        env_of={"message-1": {**_ENV, **observed}, "push-1": _PUSH},
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

    async def read_all(self) -> list[int]:
        """Come, take what is there, go; the types of what was there."""
        async with self.online() as device:
            head_pos = device.all("welcome")[0].head_pos
            await device.until(lambda: head_pos in device.positions)
            await device.ack(head_pos)
            await device.until(lambda: bool(device.all("caught_up")))
            return [envelope.type for envelope in device.all("deliver")]

    async def set_token(self) -> None:
        request = push_pb2.SetTokenRequest(apns=self.apns)
        await self.call(lambda stub, metadata: stub.SetToken(request, metadata=metadata))

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
        await eventually(lambda: len(self.rings()) >= times, within=_WITHIN)
        return self.rings()


async def a_person(mesh: Mesh) -> Person:
    person = Person(mesh, await register(mesh.gateway_addresses[0]), os.urandom(32))
    await person.set_token()
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
        types = await away.read_all()
        await say(device, away)
        rings = await away.rung(2)

    assert types == [send_pb2.CIPHERTEXT_TYPE_PLAIN] * 3
    assert first["is_urgent"]
    assert "canary" not in json.dumps(rings)
    assert len(rings) == 2
    assert sender.rings() == []


async def test_the_time_from_a_wake_up_to_the_next_stream_is_told_once(mesh, metrics):
    def timed(kind: str) -> float:
        return max(0.0, value(metrics, f"whimbrel_push_fetched_seconds_{kind}"))

    sender, away = await a_person(mesh), await a_person(mesh)
    async with sender.online() as device:
        times, seconds, began = timed("count"), timed("sum"), time.monotonic()
        await say(device, away)
        await away.rung(1)
        still_away = timed("count")
        await away.read_all()
        lasted = time.monotonic() - began
        async with away.online():  # nobody has woken it for this
            pass

    assert still_away == times
    assert timed("count") == times + 1
    assert seconds < timed("sum") < seconds + lasted


async def test_what_is_not_urgent_wakes_quietly(mesh):
    sender, away = await a_person(mesh), await a_person(mesh)
    async with sender.online() as device:
        await say(device, away, urgent=False)
        [ring] = await away.rung(1)

    assert not ring["is_urgent"]


async def test_a_muted_chat_wakes_nobody_and_another_does(mesh):
    muted, sender, away = [await a_person(mesh) for _ in range(3)]
    request = identity_pb2.SetMuteRequest(user_id=muted.account.user_id)
    request.until.FromSeconds(int(time.time()) + 3600)
    await away.call(
        lambda stub, metadata: stub.SetMute(request, metadata=metadata),
        identity_pb2_grpc.IdentityServiceStub,
    )
    async with muted.online() as one, sender.online() as other:
        await say(one, away)
        await say(other, away, urgent=False)
        [ring] = await away.rung(1)

    # The muted one came first and is urgent: had it been heard, this would ring.
    assert not ring["is_urgent"]


async def test_a_token_that_another_account_registers_wakes_its_first_owner_no_more(mesh):
    sender, first = await a_person(mesh), await a_person(mesh)
    second = Person(mesh, await register(mesh.gateway_addresses[0]), first.apns)
    await second.set_token()
    other = await a_person(mesh)
    async with sender.online() as device:
        await say(device, first)
        await say(device, other)
        await other.rung(1)
        before = first.rings()
        await say(device, second)
        await second.rung(1)

    assert before == []


async def test_who_is_online_is_not_woken(mesh):
    sender, there, away = [await a_person(mesh) for _ in range(3)]
    async with sender.online() as device, there.online() as reader:
        await say(device, there)
        await say(device, away)
        await reader.until(lambda: bool(reader.positions))
        await reader.ack(reader.positions[-1])
        await away.rung(1)

    assert there.rings() == []
    assert reader.all("deliver")[0].type == send_pb2.CIPHERTEXT_TYPE_PLAIN


async def test_what_a_flushed_redis_forgot_is_told_again(mesh):
    sender, away = await a_person(mesh), await a_person(mesh)
    async with sender.online() as device:
        await say(device, away, urgent=False)
        await away.rung(1)
        await away.read_all()
        # So soon after the first one it has to wait: Redis alone knows of it.
        await say(device, away, urgent=False)
        await waits(mesh, away)
        async with open_redis(mesh.stack.redis_url) as redis:
            await redis.flushall()
        await away.rung(2)


async def waits(mesh: Mesh, person: Person) -> None:
    member = f"{person.account.user_id.hex()}:1"
    async with open_redis(mesh.stack.redis_url) as redis:

        async def is_later() -> bool:
            return await redis.zscore("whimbrel:{push}:later", member) is not None

        await eventually(is_later, within=_WITHIN)


@pytest.mark.timeout(180)
async def test_a_dead_push_service_delays_no_message_and_forgets_nobody(mesh):
    sender, there, first, second = [await a_person(mesh) for _ in range(4)]
    mesh.kill("push-1")
    await mesh.ended("push-1")
    async with sender.online() as device, there.online() as reader:
        began = time.monotonic()
        await say(device, there)
        await reader.until(lambda: bool(reader.positions))
        took = time.monotonic() - began
        await say(device, first)
        await say(device, second)
        await mesh.start("push-1")
        await first.rung(1)
        await second.rung(1)

    assert took < 2


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", ["push.before_ring", "push.rung"])
async def test_a_push_service_killed_midway_loses_no_urgent_wake_up(mesh, point):
    sender, away = await a_person(mesh), await a_person(mesh)
    mortal = {**_PUSH, "WHIMBREL_PUSH_FAILPOINT": f"{point}:1"}
    await mesh.stop("push-1")
    await mesh.start("push-1", env=mortal)
    async with sender.online() as device:
        await say(device, away)
        while True:
            async with asyncio.timeout(_WITHIN):
                await mesh.ended("push-1")
            if await is_outstanding(mesh, away):
                break
            await mesh.start("push-1", env=mortal)  # it died of somebody else's
        rung_before = len(away.rings())
        # The message service tells of nobody: what rings is what the dead instance had taken.
        mesh.kill("message-1", signal.SIGSTOP)
        try:
            await mesh.start("push-1", env=_PUSH)
            rings = await away.rung(rung_before + 1)
        finally:
            mesh.kill("message-1", signal.SIGCONT)

    assert rings[-1]["is_urgent"]


async def is_outstanding(mesh: Mesh, person: Person) -> bool:
    key = f"whimbrel:{{push}}:device:{person.account.user_id.hex()}:1"
    async with open_redis(mesh.stack.redis_url) as redis:
        return bool(await redis.exists(key))


async def test_no_log_tells_a_token_a_sender_or_what_was_said(mesh):
    sender, away = await a_person(mesh), await a_person(mesh)
    async with sender.online() as device:
        await say(device, away)
        [ring] = await away.rung(1)

    secrets = [b"canary-body", away.apns.hex().encode(), away.apns]
    logs = {path.name: path.read_bytes() for path in (mesh.data / "logs").iterdir()}
    assert {n for n, log in logs.items() if any(one in log for one in secrets)} == set()
    assert sender.account.handle not in json.dumps(ring)
    assert "push-1.log" in logs


async def test_a_developer_gives_a_device_a_token_and_sees_the_push_arrive(mesh):
    handle = f"dev{os.urandom(4).hex()}"
    profile, in_file = mesh.data / "profiles" / handle, Protection(key_ring=False)
    await Client.register(profile, handle, gateways=mesh.gateway_addresses, protection=in_file)
    sender = await a_person(mesh)

    def pushes(*options: str) -> Result:
        return CliRunner().invoke(app, ["pushes", "--data", str(mesh.data), *options])

    given = await asyncio.to_thread(pushes, "--as", handle)
    away = Person(mesh, sender.account, simulated_token(handle))
    async with Client.connect(profile, protection=in_file) as client:
        user_id = client.user_id
    async with sender.online() as device:
        send = a_send(user_id)
        send.urgent = True
        await device.send(send)
        await device.answer(send)
        await away.rung(1)
    shown = await asyncio.to_thread(pushes, "--json")

    assert f"{handle} is woken as device {short(away.apns.hex())}" in given.output
    assert short(away.apns.hex()) in shown.output


async def test_the_sdk_has_a_device_woken_by_firebase_and_by_web_push_or_not_at_all(mesh, tmp_path):
    ann, ben = (f"p{os.urandom(8).hex()}" for _ in range(2))
    for handle in (ann, ben):
        await Client.register(tmp_path / handle, handle, gateways=mesh.gateway_addresses)
    token, arrivals = f"fcm{os.urandom(16).hex()}", Arrivals()
    credentials = Credentials(mesh.data / "push-providers")
    public = credentials.ec_public(credentials.vapid_key)
    server = SimulatedWebPush(public, arrivals, SystemClock())

    async with (
        Client.connect(tmp_path / ann) as sender,
        Http2Server(server.answer, credentials.tls()) as at,
    ):
        server.origin = f"https://127.0.0.1:{at.port}"
        device = server.subscribe()
        async with Client.connect(tmp_path / ben) as away:
            vapid_key = await away.push.vapid_key()
            await away.push.by_fcm(token)
        await sender.send(ben, "ring")
        await eventually(lambda: is_rung(mesh, token), within=_WITHIN)
        async with Client.connect(tmp_path / ben) as away:
            await away.push.by_web_push(server.origin + device.path, device.p256dh, device.auth)
            await received(away, 1)
        await sender.send(ben, "ring again")
        async with asyncio.timeout(_WITHIN):
            [rung] = await arrivals.until(1)
        with_it = await count_tokens(mesh, away.user_id)
        async with Client.connect(tmp_path / ben) as away:
            await away.push.off()
        without = await count_tokens(mesh, away.user_id)

    assert vapid_key == public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert (rung.provider, rung.payload, server.rules.refused) == ("web push", '{"wake":1}', [])
    assert (with_it, without) == (1, 0)


def is_rung(mesh, token: str) -> bool:
    return any(one.device == short(token) for one in arrived(mesh.data))


async def count_tokens(mesh, user_id: bytes) -> int:
    connection = await asyncpg.connect(mesh.push_database)
    try:
        query = "SELECT count(*) FROM push_token WHERE user_id = $1"
        return await connection.fetchval(query, user_id)
    finally:
        await connection.close()
