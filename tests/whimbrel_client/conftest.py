"""People on a fake mesh."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.whimbrel_client.fake_gateway import FakeGateway, FakeMesh, running_gateway
from whimbrel_client import Client


@pytest.fixture
def mesh() -> FakeMesh:
    return FakeMesh()


@pytest.fixture
async def gateway(mesh: FakeMesh) -> AsyncIterator[FakeGateway]:
    async with running_gateway(mesh) as gateway:
        yield gateway


class People:
    """Registers people, each in a folder of their own."""

    def __init__(self, folder: Path, gateway: FakeGateway) -> None:
        self._folder = folder
        self._gateway = gateway

    async def register(self, handle: str) -> Path:
        profile = self._folder / handle
        await Client.register(profile, handle, gateways=[self._gateway.address])
        return profile


@pytest.fixture
def people(tmp_path: Path, gateway: FakeGateway) -> People:
    return People(tmp_path, gateway)


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    """No test of this folder waits for ever."""
    task = asyncio.current_task()
    timer = asyncio.get_running_loop().call_later(60, task.cancel if task else lambda: None)
    yield
    timer.cancel()
