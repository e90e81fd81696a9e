"""`python -m svc_push` runs an instance; it has a few commands beside that."""

import asyncio
import sys

from mesh.server import run_until_signalled
from mesh.settings import describe, load
from svc_push import preparing
from svc_push.app import serve
from svc_push.settings import Settings, StoreSettings

_USAGE = """usage: python -m svc_push            run an instance
       python -m svc_push prepare    make the schema
       python -m svc_push settings   print every setting
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
        case ["prepare"]:
            return asyncio.run(preparing.run(load(StoreSettings, part_of=Settings)))
        case _:
            sys.stderr.write(_USAGE)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
