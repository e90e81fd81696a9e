"""A real haproxy as examples/haproxy has it, before the gateways of a mesh; run by hand."""

import asyncio
import contextlib
import csv
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e.device import Device, a_send
from tests.e2e.meshes import own_mesh
from tests.e2e.people import register_all
from tests.faults.town import a_town, eventually
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.ports import LOOPBACK, free_port

pytestmark = pytest.mark.soak

_CONFIG = Path(__file__).parents[2] / "examples" / "haproxy" / "haproxy.cfg"
_SILENCE_SECONDS = 95  # longer than haproxy bears
_MOST_IN_TEN_SECONDS = 200


class Balancer:
    """haproxy in a process of its own."""

    def __init__(self, folder: Path, mesh: Mesh, health_ports: list[int]) -> None:
        self.address = f"{LOOPBACK}:{free_port()}"
        self._socket = folder / "haproxy.sock"
        self._config = folder / "haproxy.cfg"
        text = _CONFIG.read_text().replace("bind :50051", f"bind {self.address}")
        text = text.replace("global\n", f"global\n    stats socket {self._socket}\n")
        text = text.replace("maxconn 24000", "maxconn 2000")  # as many files as anybody may open
        servers = zip(mesh.gateway_addresses, health_ports, strict=True)
        for number, (address, port) in enumerate(servers, start=1):
            text = re.sub(
                rf"server gateway-{number} \S+",
                f"server gateway-{number} {address} port {port}",
                text,
            )
        self._config.write_text(text)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        program = shutil.which("haproxy")
        assert program, "this test needs haproxy: apt-get install haproxy"
        process = await asyncio.create_subprocess_exec(program, "-db", "-f", self._config)
        try:
            await eventually(self._socket.exists)
            yield
        finally:
            process.terminate()
            await process.wait()

    async def _stat(self) -> dict[str, dict[str, str]]:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        writer.write(b"show stat\n")
        rows = csv.DictReader((await reader.read()).decode().removeprefix("# ").splitlines())
        writer.close()
        return {row["svname"]: row for row in rows if row["svname"].startswith("gateway-")}

    async def connections(self) -> dict[str, int]:
        """How many each gateway has."""
        return {name: int(row["scur"]) for name, row in (await self._stat()).items()}

    async def is_up(self, name: str) -> bool:
        return (await self._stat())[name]["status"] == "UP"

    async def are(self, wanted: dict[str, int]) -> None:
        async def is_so() -> bool:
            return await self.connections() == wanted

        await eventually(is_so)


@pytest.fixture
async def mesh_and_balancer(tmp_path: Path) -> AsyncIterator[tuple[Mesh, Balancer]]:
    ports = [free_port(), free_port()]
    env_of = {
        f"gateway-{number}": {"WHIMBREL_GATEWAY_HEALTH_LISTEN": f"{LOOPBACK}:{port}"}
        for number, port in enumerate(ports, start=1)
    }
    async with own_mesh(env_of=env_of) as mesh:
        balancer = Balancer(tmp_path, mesh, ports)
        async with balancer.running():
            yield mesh, balancer


async def test_it_spreads_streams_lets_idle_ones_live_and_stops_a_flood(
    mesh_and_balancer: Any,
) -> None:
    _, balancer = mesh_and_balancer
    people = await register_all(balancer.address, 10)
    async with contextlib.AsyncExitStack() as opened:
        devices = [
            await opened.enter_async_context(Device(person, balancer.address)) for person in people
        ]
        for device in devices:
            await device.hello()
        await balancer.are({"gateway-1": 5, "gateway-2": 5})

        await asyncio.sleep(_SILENCE_SECONDS)  # nothing is said: what passes is the time itself
        await devices[0].send(a_send(people[1].user_id, b"still there"))
        await devices[1].until(lambda: bool(devices[1].all("deliver")))
        assert all(device.failure is None for device in devices)
        assert await balancer.connections() == {"gateway-1": 5, "gateway-2": 5}

    assert await _refused(balancer.address, _MOST_IN_TEN_SECONDS) == 0
    assert await _refused(balancer.address, 50) > 0


async def test_gateways_that_are_replaced_behind_it_lose_nothing(mesh_and_balancer: Any) -> None:
    mesh, balancer = mesh_and_balancer
    behind: Any = SimpleNamespace(gateway_addresses=[balancer.address], shards=mesh.shards)
    async with a_town(behind) as town:
        for round_, name in enumerate(("gateway-1", "gateway-2")):
            town.write(150)
            await town.has_accepted(150 * round_ + 30)
            await mesh.stop(name)
            await mesh.start(name)
            await eventually(lambda name=name: balancer.is_up(name))

        await town.settled()

    await town.check()


async def _refused(address: str, count: int) -> int:
    """How many of so many new connections are closed at once, where gRPC would say something."""
    host, _, port = address.rpartition(":")

    async def is_refused() -> bool:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                return not await reader.read(1)
            finally:
                writer.close()
        except ConnectionError:
            return True

    return sum([await is_refused() for _ in range(count)])
