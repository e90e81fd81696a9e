"""Holds servers of one test run, for all its workers, until the run is over.

usage: python stack_keeper.py DIRECTORY PID [seaweed]    the three stores, or the object store

A process of its own, because the worker that needs the stack first is not the one that ends last.
It ends when it is told to, or when the run's main process is gone, however that went.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.files import owned, write_private
from whimbrel_cli.stack.seaweed import Seaweed
from whimbrel_cli.stack.servers import Server
from whimbrel_cli.stack.settings import StackSettings
from whimbrel_cli.stack.stack import running_stack

MEMORY = Path("/dev/shm")


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    """The server, while it runs; it may be killed and started again meanwhile."""
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def stores(data: Path) -> AsyncIterator[dict[str, str]]:
    reachable = MEMORY if data.parent == MEMORY else cluster.REACHABLE
    settings = StackSettings.model_construct(postgres_reachable=reachable)
    async with running_stack(data, settings) as stack:
        yield {
            "postgres": stack.postgres_dsns[0],
            "redis": stack.redis_url,
            "etcd": stack.etcd_endpoint,
        }


@contextlib.asynccontextmanager
async def seaweed(data: Path) -> AsyncIterator[dict[str, str]]:
    with owned(data):
        async with running(Server(Seaweed(data / "seaweed"), log=data / "seaweed.log")) as server:
            yield {"s3": server.address}


async def keep(data: Path, run: psutil.Process, *, is_seaweed: bool) -> None:
    over = asyncio.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, over.set)
    holding = seaweed if is_seaweed else stores
    async with holding(data) as addresses:
        write_private(data / "addresses.json", json.dumps(addresses))
        while run.is_running() and not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), timeout=0.5)


def main() -> None:
    data, run_pid = Path(sys.argv[1]), int(sys.argv[2])
    try:
        asyncio.run(keep(data, psutil.Process(run_pid), is_seaweed="seaweed" in sys.argv[3:]))
    finally:
        cluster.remove(data / "postgres")
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
