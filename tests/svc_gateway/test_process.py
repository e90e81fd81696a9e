"""The gateway as a process, with etcd, Valkey and a message service found through discovery."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.auth import TokenSigner
from mesh.discovery import Discovery
from mesh.errors import failure_of
from mesh.health import check
from mesh.ids import new_ulid, ulid_text
from mesh.keys import KeySet
from mesh.redis import open_redis
from tests.svc_gateway.device import TestDevice
from tests.svc_gateway.fake_message import RunningMessage, Store, until
from whimbrel.error.v1 import reason_pb2


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Instance:
    """One gateway process."""

    def __init__(self, directory: Path, etcd: Any, redis_url: str) -> None:
        self.address = f"127.0.0.1:{a_free_port()}"
        self._keys = KeySet.generate()
        self._keys.save(directory / "keys.json")
        self._log = directory / "gateway.log"
        self.environment = {
            **os.environ,
            "WHIMBREL_GATEWAY_LISTEN": self.address,
            "WHIMBREL_GATEWAY_ETCD": etcd.endpoint,
            "WHIMBREL_GATEWAY_ETCD_PREFIX": etcd.prefix,
            "WHIMBREL_GATEWAY_REDIS_URL": redis_url,
            "WHIMBREL_GATEWAY_TOKEN_KEYS": str(directory / "keys.json"),
            "WHIMBREL_GATEWAY_TLS__INSECURE": "true",
            "WHIMBREL_GATEWAY_DRAIN_SPREAD": "PT0.2S",
        }
        self.process: asyncio.subprocess.Process

    async def start(self, *arguments: str, **knobs: str) -> None:
        with self._log.open("a") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "svc_gateway",
                *arguments,
                env={**self.environment, **knobs},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def until_ready(self) -> None:
        async with asyncio.timeout(20), grpc.aio.insecure_channel(self.address) as channel:
            await channel.channel_ready()
            while not await check(channel):
                await asyncio.sleep(0.05)

    async def exit_code(self, within: float = 15) -> int:
        async with asyncio.timeout(within):
            return await self.process.wait()

    def log(self) -> str:
        return self._log.read_text()

    def device(self, user_id: bytes) -> TestDevice:
        assert self._keys.private_key is not None
        signer = TokenSigner(self._keys.private_key, self._keys.key_id)
        token, _ = signer.device_token(
            user=ulid_text(user_id),
            device_id=1,
            credential_version=1,
            lifetime=timedelta(minutes=10),
        )
        return TestDevice(user_id, token, self.address)


@pytest.fixture
async def gateway(tmp_path: Path, etcd: Any, redis_url: str) -> AsyncIterator[Instance]:
    instance = Instance(tmp_path, etcd, redis_url)
    yield instance
    with contextlib.suppress(ProcessLookupError):
        instance.process.kill()
    await instance.process.wait()


@pytest.fixture
async def message(etcd: Any) -> AsyncIterator[RunningMessage]:
    """A message service that is registered in etcd."""
    running = RunningMessage(Store(), "message-1")
    await running.start()
    async with Discovery(etcd.endpoint, prefix=etcd.prefix) as discovery:
        discovery.register(running.instance)
        yield running
    await running.stop()


async def test_a_gateway_serves_and_leaves_nothing_behind_when_it_is_taken_down(
    gateway: Instance, message: RunningMessage, redis_url: str
) -> None:
    await gateway.start()
    await gateway.until_ready()
    device = gateway.device(new_ulid())
    await device.hello()
    async with open_redis(redis_url) as redis:
        await until_true(lambda: redis.keys("whimbrel:session:*"))

        gateway.process.send_signal(signal.SIGTERM)
        failure = await device.ended()

        assert await gateway.exit_code() == 0
        assert await redis.keys("*") == []
    assert failure is not None
    assert failure_of(failure).reason == "SERVER_DRAINING"
    assert device.all("go_away")[0].reason == reason_pb2.ERROR_REASON_SERVER_DRAINING
    await device.close()


async def test_a_second_signal_ends_it_at_once(gateway: Instance, message: RunningMessage) -> None:
    await gateway.start(WHIMBREL_GATEWAY_DRAIN_SPREAD="PT60S", WHIMBREL_GATEWAY_DRAIN="PT60S")
    await gateway.until_ready()
    devices = [gateway.device(new_ulid()) for _ in range(3)]
    for device in devices:
        await device.hello()

    gateway.process.send_signal(signal.SIGTERM)
    await until(lambda: any("go_away" in device.kinds for device in devices))
    gateway.process.send_signal(signal.SIGTERM)

    assert await gateway.exit_code(within=5) == -signal.SIGTERM
    for device in devices:
        await device.close()


async def test_it_starts_and_serves_while_etcd_and_redis_are_away(gateway: Instance) -> None:
    nowhere = f"127.0.0.1:{a_free_port()}"
    await gateway.start(
        WHIMBREL_GATEWAY_ETCD=nowhere, WHIMBREL_GATEWAY_REDIS_URL=f"redis://{nowhere}/0"
    )

    await gateway.until_ready()

    async with grpc.aio.insecure_channel(gateway.address) as channel:
        await until_true(lambda: is_unwell(channel, "redis"))
        await until_true(lambda: is_unwell(channel, "etcd"))
        assert await check(channel)


async def test_wrong_settings_are_all_named_and_stop_the_start(gateway: Instance) -> None:
    await gateway.start(
        WHIMBREL_GATEWAY_MAX_UNACKED="none",
        WHIMBREL_GATEWAY_TOKEN_KEYS="/nowhere",
        WHIMBREL_GATEWAY_NO_SUCH_KNOB="1",
        WHIMBREL_GATEWAY_CLIENT_TLS__CERTIFICATE=__file__,
        WHIMBREL_GATEWAY_CLIENT_TLS__KEY=__file__,
    )

    assert await gateway.exit_code() == 2
    for name in ("MAX_UNACKED", "TOKEN_KEYS", "NO_SUCH_KNOB", "CLIENT_TLS"):
        assert f"WHIMBREL_GATEWAY_{name}" in gateway.log()
    assert f"{__file__} holds no certificate" in gateway.log()


async def test_every_knob_is_printed_and_no_secret(gateway: Instance) -> None:
    await gateway.start("settings")

    output, _ = await gateway.process.communicate()

    assert b"WHIMBREL_GATEWAY_LISTEN" in output
    assert b"WHIMBREL_GATEWAY_REDIS_URL  (default (secret))" in output


@pytest.mark.parametrize(
    "point", ["send.received", "send.before_forward", "accepted.before_device"]
)
async def test_it_dies_where_a_fault_test_wants_it(
    gateway: Instance, message: RunningMessage, point: str
) -> None:
    await gateway.start(WHIMBREL_GATEWAY_FAILPOINT=f"{point}:2")
    await gateway.until_ready()
    device = gateway.device(new_ulid())
    await device.hello()

    await device.send(new_ulid())
    await device.until(lambda: len(device.all("accepted")) == 1)
    await device.send(new_ulid())

    assert await gateway.exit_code() == -signal.SIGKILL
    await device.close()


async def is_unwell(channel: grpc.aio.Channel, name: str) -> bool:
    return not await check(channel, name)


async def until_true(condition: Any, within: float = 10) -> None:
    async with asyncio.timeout(within):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_limit_that_is_set_in_etcd_holds_for_a_running_instance(
    gateway: Instance, etcd: Any
) -> None:
    await gateway.start()
    await gateway.until_ready()
    async with (
        grpc.aio.insecure_channel(gateway.address) as channel,
        Discovery(etcd.endpoint, prefix=etcd.prefix) as operator,
    ):
        register = channel.unary_unary("/whimbrel.identity.v1.IdentityService/Register")

        async def reason() -> str:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await register(b"")
            return failure_of(caught.value).reason

        assert await reason() == "UNAVAILABLE"  # admitted, but there is nobody to answer

        limits = {"nonsense": {"burst": 1}, "registrations": {"burst": 1, "per_second": 0.01}}
        await operator.put_value("limits", json.dumps(limits).encode())
        async with asyncio.timeout(20):
            while await reason() != "RATE_LIMITED":
                await asyncio.sleep(0.05)

    assert "'nonsense' is no limit" in gateway.log()


async def test_devices_that_would_be_sent_away_too_late_stop_the_start(gateway: Instance) -> None:
    await gateway.start(WHIMBREL_GATEWAY_DRAIN_SPREAD="PT60S", WHIMBREL_GATEWAY_DRAIN="PT30S")

    assert await gateway.exit_code() == 2
    assert "drain_spread is longer than drain" in gateway.log()
