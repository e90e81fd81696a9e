"""A mesh to break: one a worker, for tests that kill its services and nothing else."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.meshes import lasting_mesh
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.programs import State


@pytest.fixture(scope="session")
def _lasting() -> Iterator[Mesh]:
    with lasting_mesh() as mesh:
        yield mesh


@pytest.fixture
async def mesh(_lasting: Mesh) -> AsyncIterator[Mesh]:
    """Two gateways, two message instances, two shards; what a test has killed is started again."""
    yield _lasting
    for status in _lasting.statuses():
        if status.state is not State.READY and status.pid is not None:
            await _lasting.start(status.name, env={})
