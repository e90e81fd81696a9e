"""`python -m svc_message` runs an instance; `migrate`, `move-slot` and `settings` are its commands."""

import asyncio
import sys

from mesh.server import run_until_signalled
from mesh.settings import load
from svc_message import migrating
from svc_message.settings import Settings, StoreSettings

_USAGE = """usage: python -m svc_message            run an instance
       python -m svc_message migrate    bring the shards' schemas up to date
       python -m svc_message move-slot SLOT TO_SHARD
       python -m svc_message settings   print every setting"""


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code."""
    match arguments:
        case []:
            from svc_message.app import serve

            settings = load(Settings)
            run_until_signalled(lambda stop: serve(settings, stop))
            return 0
        case ["settings"]:
            return 0
        case ["migrate"]:
            return asyncio.run(migrating.run(load(StoreSettings).shards))
        case ["move-slot", slot, to_shard]:
            from svc_message.shards import moving

            return asyncio.run(moving.run(load(StoreSettings).shards, slot, to_shard))
        case _:
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
