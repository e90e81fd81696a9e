"""`python -m svc_push` runs an instance; it has a few commands beside that."""

import sys

from mesh.command import Step, main
from mesh.settings import load
from svc_push import preparing
from svc_push.app import serve
from svc_push.settings import Settings, StoreSettings

_STEPS = {
    "prepare": Step(
        "make the schema", lambda: preparing.run(load(StoreSettings, part_of=Settings))
    ),
}

if __name__ == "__main__":
    sys.exit(main("svc_push", Settings, serve, _STEPS))
