"""One file from one person to another by the SDK, in a process that has imported nothing else.

`python -m whimbrel_cli.bench.file_sdk GATEWAY FOLDER MIB` prints the figures as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from whimbrel_client import Client, Protection

_MIB = 1 << 20
_IN_FILE = Protection(key_ring=False)


async def measured(gateway: str, folder: Path, mib: int) -> Mapping[str, float]:
    """One file from one person to another; both are this process."""
    path = folder / "file"
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(_MIB))
    for name in ("sends", "saves"):
        await Client.register(folder / name, name, gateways=[gateway], protection=_IN_FILE)
    async with (
        Client.connect(folder / "sends", protection=_IN_FILE) as sender,
        Client.connect(folder / "saves", protection=_IN_FILE) as reader,
    ):
        began = time.monotonic()
        await sender.accepted(await sender.files.send("saves", path))
        sent = time.monotonic()
        message = await anext(reader.messages())
        saved = await reader.files.save(message, folder / "saved")
        ended = time.monotonic()
    if saved.stat().st_size != path.stat().st_size:
        raise RuntimeError("the file did not arrive whole")
    return {
        "sent_mib_per_s": mib / (sent - began),
        "saved_mib_per_s": mib / (ended - sent),
        "sdk_rss_mib": _peak_mib(),
    }


def _peak_mib() -> float:
    """The most memory that was resident; getrusage would tell that of the process before exec."""
    status = Path("/proc/self/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak) / 1024


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measured(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))))
