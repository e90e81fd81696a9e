"""A gateway with real streams, between fake message services and raw devices."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.auth import TokenSigner, TokenVerifier
from mesh.channels import Channels
from mesh.ids import new_ulid, ulid_text
from mesh.keys import KeySet
from mesh.server import CLIENT_LISTENER, bind, new_server
from mesh.tls import Identity, TlsSettings
from svc_gateway.conversation import direct
from svc_gateway.gateway import Gateway
from svc_gateway.settings import Settings
from tests.svc_gateway.device import TestDevice
from tests.svc_gateway.fake_buckets import MemoryBuckets
from tests.svc_gateway.fake_message import RunningMessage, Store, until
from tests.svc_gateway.fake_registry import MemoryRegistry
from whimbrel.identity.v1 import identity_pb2
from whimbrel.identity.v1.identity_pb2_grpc import IdentityServiceServicer


class FakeIdentity(IdentityServiceServicer):
    """The other service of a message instance, which remembers who called."""

    def __init__(self, edge: "Edge", instance_id: str) -> None:
        self._edge = edge
        self._instance_id = instance_id

    async def Register(self, request: Any, context: Any) -> identity_pb2.RegisterResponse:
        await self._called(context)
        return identity_pb2.RegisterResponse(access_token=f"token of {request.handle}")

    async def LookUp(self, request: Any, context: Any) -> identity_pb2.LookUpResponse:
        await self._called(context)
        return identity_pb2.LookUpResponse(user_id=b"u" * 16)

    async def _called(self, context: Any) -> None:
        edge = self._edge
        edge.identity_calls.append((self._instance_id, dict(context.invocation_metadata())))
        if edge.identity_hangs is not None:
            await edge.identity_hangs.wait()
        if edge.identity_failure is not None and edge.identity_failures_left:
            edge.identity_failures_left -= 1
            raise edge.identity_failure


INSECURE = TlsSettings(insecure=True)


class Edge:
    """One gateway, the fake services behind it, and the devices before it."""

    def __init__(self, keys: Path) -> None:
        self.keys = KeySet.generate()
        self.keys.save_public(keys)
        self.keys_path = keys
        self.store = Store()
        self.messages: dict[str, RunningMessage] = {}
        self.gateway: Gateway
        self.address = ""
        self.registry = MemoryRegistry("gateway-under-test")
        self.buckets = MemoryBuckets()
        self.identity_calls: list[tuple[str, dict[str, Any]]] = []
        self.identity_failure: Exception | None = None
        self.identity_failures_left = 100
        self.identity_hangs: asyncio.Event | None = None
        self._devices: list[TestDevice] = []
        self._channels = Channels(Identity.insecure("gateway"))
        self._server: grpc.aio.Server
        self._running: asyncio.Task[None]

    async def start(self, *, messages: int = 1, **knobs: Any) -> None:
        settings = Settings(token_keys=self.keys_path, tls=INSECURE, **knobs)
        self.gateway = Gateway(
            settings,
            instance_id="gateway-under-test",
            channels=self._channels,
            identity=Identity.insecure("gateway"),
            verifier=TokenVerifier(self.keys.public_keys),
            registry=self.registry,
            buckets=self.buckets,
        )
        self._server = new_server(CLIENT_LISTENER)
        self.gateway.add_to(self._server)
        self.address = bind(self._server, "127.0.0.1:0")
        await self._server.start()
        self._running = asyncio.create_task(self.gateway.run())
        for number in range(messages):
            await self.add_message(f"message-{number}")
        await self.until_attached(messages)

    async def add_message(self, instance_id: str) -> RunningMessage:
        identity = FakeIdentity(self, instance_id)
        message = RunningMessage(self.store, instance_id, identity)
        self.messages[instance_id] = message
        await message.start()
        self.discover()
        return message

    def discover(self) -> None:
        known = {name: message.instance for name, message in self.messages.items()}
        self.gateway.attach.instances_changed(known)

    async def until_attached(self, count: int) -> None:
        await until(lambda: len(self.gateway.attach.open_instances) == count)

    @property
    def message(self) -> RunningMessage:
        return next(iter(self.messages.values()))

    def home_of(self, user_id: bytes, peer_id: bytes) -> RunningMessage:
        """The instance that is asked about the chat of two users."""
        instance_id = self.gateway.attach.pick(direct(user_id, peer_id).slot)
        assert instance_id is not None
        return self.messages[instance_id]

    @property
    def _signer(self) -> TokenSigner:
        assert self.keys.private_key is not None
        return TokenSigner(self.keys.private_key, self.keys.key_id)

    def token(self, user_id: bytes, *, lifetime: float = 600) -> str:
        return self._signer.device_token(
            user=ulid_text(user_id),
            device_id=1,
            credential_version=1,
            lifetime=timedelta(seconds=lifetime),
        )[0]

    def device(
        self,
        user_id: bytes | None = None,
        token: str | None = None,
        *,
        options: Sequence[tuple[str, int]] = (),
        metadata: Sequence[tuple[str, str]] = (),
    ) -> TestDevice:
        """A stream that has said nothing yet."""
        user_id = user_id or new_ulid()
        token = self.token(user_id) if token is None else token
        device = TestDevice(user_id, token, self.address, options=options, metadata=metadata)
        self._devices.append(device)
        return device

    async def connect(self, user_id: bytes | None = None, **hello: int) -> TestDevice:
        """A stream that is open."""
        device = self.device(user_id)
        await device.hello(**hello)
        return device

    async def stop(self) -> None:
        for device in self._devices:
            await device.close()
        self._running.cancel()
        await asyncio.wait([self._running])
        await self.gateway.close()
        await self._server.stop(0)
        for message in self.messages.values():
            await message.stop()
        await self._channels.close()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """`await edge.start()`, then `await edge.connect()`."""
    edge = Edge(tmp_path / "public.json")
    yield edge
    await edge.stop()
