"""Ways to break an instance of a mesh, each undone at the end of its block."""

import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from mesh.discovery import Discovery
from mesh.instances import newest_at_each_address
from mesh.rendezvous import Rendezvous
from tests.faults.town import WITHIN, eventually
from whimbrel_cli.stack.mesh import Mesh

_ATTACHED = "gateway attached"  # what a message instance logs


@contextlib.asynccontextmanager
async def restarted(mesh: Mesh, *names: str, env: Mapping[str, str]) -> AsyncIterator[None]:
    """The instances run with other settings for as long as the block lasts."""
    await _start_again(mesh, names, env)
    try:
        yield
    finally:
        await _start_again(mesh, names, {})


@contextlib.asynccontextmanager
async def dying_at(mesh: Mesh, name: str, point: str, *, count: int = 3) -> AsyncIterator[None]:
    """The instance dies by SIGKILL as it passes the point for the count-th time."""
    setting = f"WHIMBREL_{name.split('-', maxsplit=1)[0].upper()}_FAILPOINT"
    async with restarted(mesh, name, env={setting: f"{point}:{count}"}):
        yield


async def died(mesh: Mesh, name: str, *, within: float = WITHIN) -> None:
    """Wait until the instance is gone, and see that nothing but SIGKILL ended it."""
    await eventually(lambda: mesh.exit_code_of(name) is not None, within=within)
    assert mesh.exit_code_of(name) == -signal.SIGKILL


async def kill(mesh: Mesh, name: str) -> None:
    """End the process without a chance to tidy up."""
    mesh.kill(name)
    await mesh.ended(name)


@contextlib.contextmanager
def frozen(mesh: Mesh, name: str) -> Iterator[None]:
    """The process stands still: it neither answers nor dies."""
    mesh.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        mesh.kill(name, signal.SIGCONT)


async def start_attached(mesh: Mesh, name: str, *, env: Mapping[str, str] | None = None) -> None:
    """Start a message instance and wait until every gateway sends it its share of the work."""
    log = mesh.log_of(name)
    before = log.read_text().count(_ATTACHED)
    await mesh.start(name, env=env)
    expected = before + len(mesh.gateway_addresses)
    await eventually(lambda: log.read_text().count(_ATTACHED) >= expected)


async def _start_again(mesh: Mesh, names: tuple[str, ...], env: Mapping[str, str]) -> None:
    for name in names:
        await kill(mesh, name)
        if name.startswith("message"):
            await start_attached(mesh, name, env=env)
        else:
            await mesh.start(name, env=env)


async def works_for(mesh: Mesh, name: str) -> Callable[[int], bool]:
    """Which slots the gateways ask this message instance for, as long as no other comes or goes."""
    address = mesh.message_addresses[int(name.removeprefix("message-")) - 1]
    async with Discovery(mesh.stack.etcd_endpoint) as discovery:
        view = discovery.watch("message")
        await view.synced.wait()
        instances = newest_at_each_address(view.instances)
    [own] = [id_ for id_, instance in instances.items() if instance.address == address]
    route = Rendezvous(instances)
    return lambda slot: route.pick(slot) == own
