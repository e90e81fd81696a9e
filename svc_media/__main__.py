"""`python -m svc_media` runs an instance; it has a few commands beside that."""

import sys

from mesh.command import Step, main
from mesh.settings import load
from svc_media import preparing
from svc_media.app import serve
from svc_media.settings import Settings, StoreSettings

_STEPS = {
    "prepare": Step(
        "make the schema, the bucket and its lifecycle",
        lambda: preparing.run(load(StoreSettings, part_of=Settings)),
    ),
}

if __name__ == "__main__":
    sys.exit(main("svc_media", Settings, serve, _STEPS))
