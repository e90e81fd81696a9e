"""The whole mesh, as processes: one for all tests of a worker that leave it as they found it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.e2e.device import Device
from tests.e2e.meshes import lasting_mesh
from tests.e2e.people import Account, register, register_all
from whimbrel_cli.stack.mesh import Mesh


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """Two gateways, two message instances, two shards."""
    with lasting_mesh() as mesh:
        yield mesh


@pytest.fixture
async def pair(mesh: Mesh) -> tuple[Account, Account]:
    """Two people that nobody else knows."""
    one, other = await register_all(mesh.gateway_addresses[0], 2)
    return one, other


class Devices:
    """Opens streams that the end of the test closes."""

    def __init__(self, mesh: Mesh, opened: AsyncExitStack) -> None:
        self._mesh = mesh
        self._opened = opened

    async def person(self) -> Account:
        return await register(self._mesh.gateway_addresses[0])

    async def stream(self, account: Account, *, gateway: int = 0, **options: object) -> Device:
        """A connection that has said nothing yet."""
        address = self._mesh.gateway_addresses[gateway]
        return await self._opened.enter_async_context(Device(account, address, **options))

    async def online(self, account: Account, *, gateway: int = 0, **hello: int) -> Device:
        """A stream that the mesh has welcomed."""
        device = await self.stream(account, gateway=gateway)
        await device.hello(**hello)
        return device


@pytest.fixture
async def devices(mesh: Mesh) -> AsyncIterator[Devices]:
    async with AsyncExitStack() as opened:
        yield Devices(mesh, opened)
