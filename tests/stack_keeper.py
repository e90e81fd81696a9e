"""Holds the embedded stack of one test run, for all its workers, until the run is over.

A process of its own, because the worker that needs the stack first is not the one that ends last.
It ends when it is told to, or when the run's main process is gone, however that went.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
from pathlib import Path

import psutil

from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.files import write_private
from whimbrel_cli.stack.stack import running_stack


async def keep(data: Path, run: psutil.Process) -> None:
    over = asyncio.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, over.set)
    async with running_stack(data) as stack:
        addresses = {
            "postgres": stack.postgres_dsns[0],
            "redis": stack.redis_url,
            "etcd": stack.etcd_endpoint,
        }
        write_private(data / "addresses.json", json.dumps(addresses))
        while run.is_running() and not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), timeout=0.5)


def main() -> None:
    data, run_pid = Path(sys.argv[1]), int(sys.argv[2])
    try:
        asyncio.run(keep(data, psutil.Process(run_pid)))
    finally:
        cluster.remove(data / "postgres")
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
