"""`python -m whimbrel_cli.providers DIRECTORY PORT LOG` runs the simulators until it is ended."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from whimbrel_cli.providers.simulators import running_simulators


async def _run(directory: Path, port: int, log: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running_simulators(directory, port=port, log=log):
        await stop.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
