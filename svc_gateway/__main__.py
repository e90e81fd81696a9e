"""`python -m svc_gateway` runs an instance; with `settings` it prints every knob."""

import sys

from mesh.command import main
from svc_gateway.app import serve
from svc_gateway.settings import Settings

if __name__ == "__main__":
    sys.exit(main("svc_gateway", Settings, serve))
