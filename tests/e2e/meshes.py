"""Meshes for tests: one that outlives the event loops of single tests, and one for a test alone."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.settings import StackSettings


@contextlib.contextmanager
def lasting_mesh(**settings: Any) -> Iterator[Mesh]:
    """A mesh for many tests; it is bound to no event loop of theirs."""
    with new_folder() as folder, asyncio.Runner() as runner:
        mesh = Mesh(folder, **settings)
        runner.run(mesh.__aenter__())
        try:
            yield mesh
        finally:
            runner.run(mesh.__aexit__(None, None, None))


@contextlib.asynccontextmanager
async def own_mesh(*, clusters: int = 1, **settings: Any) -> AsyncIterator[Mesh]:
    """A mesh for one test, to do with as it likes; with two clusters, each shard has its own."""
    stack = StackSettings(postgres_clusters=clusters)
    with new_folder() as folder:
        async with Mesh(folder, settings=stack, **settings) as mesh:
            yield mesh


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """Where a mesh may live; all that it left is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="whimbrel-mesh-"))
    try:
        yield folder
    finally:
        for postgres in folder.glob("postgres*"):
            cluster.remove(postgres)
        shutil.rmtree(folder, ignore_errors=True)
