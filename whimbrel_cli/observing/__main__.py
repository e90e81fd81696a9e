"""`python -m whimbrel_cli.observing FOLDER HOST:PORT`: the collector as a process."""

import asyncio
import sys
from pathlib import Path

from whimbrel_cli.observing.collector import serve

if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
