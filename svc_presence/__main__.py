"""`python -m svc_presence` runs an instance; with `settings` it prints every knob."""

import sys

from mesh.command import main
from svc_presence.app import serve
from svc_presence.settings import Settings

if __name__ == "__main__":
    sys.exit(main("svc_presence", Settings, serve))
