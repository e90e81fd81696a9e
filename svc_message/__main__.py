"""`python -m svc_message` runs an instance; it has a few commands beside that."""

import asyncio
import sys

from mesh.server import run_until_signalled
from mesh.settings import describe, load
from svc_message import migrating
from svc_message.app import serve
from svc_message.settings import Settings, StoreSettings
from svc_message.shards import moving

_USAGE = """usage: python -m svc_message            run an instance
       python -m svc_message migrate    bring the shards' schemas up to date
       python -m svc_message move-slot SLOT SHARD    move a slot's rows to another shard
       python -m svc_message settings   print every setting
"""


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code."""
    match arguments:
        case []:
            settings = load(Settings)
            run_until_signalled(lambda stop: serve(settings, stop))
            return 0
        case ["settings"]:
            sys.stdout.write(f"{describe(Settings)}\n")
            return 0
        case ["migrate"]:
            return asyncio.run(migrating.run(load(StoreSettings, part_of=Settings).shards))
        case ["move-slot", slot, to] if slot.isdecimal():
            return asyncio.run(
                moving.run(load(StoreSettings, part_of=Settings).shards, int(slot), to)
            )
        case _:
            sys.stderr.write(_USAGE)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
