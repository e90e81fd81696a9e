"""The core of svc_message over two migrated shards, and gateways that only remember."""

import asyncio
from dataclasses import dataclass, field

import pytest

from mesh.clock import SystemClock
from mesh.ids import random_id, slot_of
from mesh.telemetry import OFF
from svc_message.core import build_core
from svc_message.requests import AckRequest, PageRequest
from svc_message.sending import read_send
from svc_message.settings import Settings
from whimbrel.message.v1 import send_pb2


class EmptyRegistry:
    """A registry in which nobody is connected."""

    async def routes(self, devices):
        return {}


@dataclass
class RecordingGateway:
    """A gateway that remembers what is pushed to it."""

    instance_id: str = "gateway"
    deliveries: list = field(default_factory=list)
    receipts: list = field(default_factory=list)
    ended: list = field(default_factory=list)
    rung: list = field(default_factory=list)
    runs: list = field(default_factory=list)

    def push_delivery(self, copy, place):
        self.deliveries.append((copy, place))

    def push_run(self, run, place):
        self.runs.append((run, place))

    def push_receipt(self, device, row):
        self.receipts.append((device, row))

    def push_doorbell(self, device, head_pos, receipt_version):
        self.rung.append((device, head_pos, receipt_version))

    def push_end(self, device, below_epoch):
        self.ended.append((device, below_epoch))


def settings_for_test(tmp_path, **changes) -> Settings:
    """Settings whose files are there, though the core reads none."""
    path = tmp_path / "unread.json"
    path.write_text("{}")
    return Settings(shards=path, token_key=path, tls={"insecure": True}, **changes)


class Core:
    """The core with requests as awaitable calls."""

    def __init__(self, core):
        self.core = core
        self.gateway = RecordingGateway()
        core.router.attach(self.gateway)

    async def send(
        self, sender, recipient, body=b"hello", *, client_id=None, after=b"", tried=None, device=1
    ):
        """(first answer or None, refusal or None)"""
        now = SystemClock().now()
        message = send_pb2.Send(
            client_message_id=client_id or random_id(),
            user_id=recipient,
            after=after,
            shared=send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_PLAIN, ciphertext=body),
        )
        message.first_tried_at.FromDatetime(tried or now)
        request = read_send(message, sender, device, now, None)
        future = asyncio.get_running_loop().create_future()
        self.core.accepting.accept(
            request, lambda _send, first, refusal: future.set_result((first, refusal))
        )
        return await future

    async def ask(self, kind, user, **fields):
        future = asyncio.get_running_loop().create_future()
        self.core.inbox.ask(
            kind(
                slot=slot_of(user),
                done=lambda _request, result: future.set_result(result),
                user_id=user,
                **fields,
            )
        )
        return await future

    async def ack(self, user, up_to_pos, device=1):
        return await self.ask(AckRequest, user, device_id=device, up_to_pos=up_to_pos)

    async def page(self, user, after=0, rows=256, size=1 << 20, device=1):
        result = await self.ask(
            PageRequest, user, device_id=device, after_pos=after, max_envelopes=rows, max_bytes=size
        )
        return [row for row in result.rows if row["pos"] is not None]


@pytest.fixture
async def core(shards, tmp_path):
    """A running core over the two shards."""
    built = build_core(
        settings_for_test(tmp_path, relay_sweep=0.05),
        {name: shards.pool(name) for name in shards.names},
        EmptyRegistry(),
        OFF,
    )
    await built.shards.read_maps()
    running = asyncio.create_task(built.run())
    yield Core(built)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def people(bulk_accounts):
    """Twenty accounts: enough for pairs on one shard and across both."""
    return [account.user_id for account in await bulk_accounts(20)]
