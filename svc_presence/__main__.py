"""`python -m svc_presence` runs an instance; with `settings` it prints every knob."""

import sys

from mesh.server import run_until_signalled
from mesh.settings import describe, load
from svc_presence.app import serve
from svc_presence.settings import Settings


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1:] == ["settings"]:
        print(describe(Settings))  # noqa: T201
        return
    settings = load(Settings)
    run_until_signalled(lambda stop: serve(settings, stop))


if __name__ == "__main__":
    main()
