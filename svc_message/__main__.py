"""`python -m svc_message` runs an instance; it has a few commands beside that."""

import sys
from collections.abc import Coroutine
from typing import Any

from mesh.command import Step, main
from mesh.settings import load
from svc_message import migrating
from svc_message.app import serve
from svc_message.settings import Settings, StoreSettings
from svc_message.shards import moving


def _settings() -> StoreSettings:
    return load(StoreSettings, part_of=Settings)


def _move(slot: str, shard: str) -> Coroutine[Any, Any, int] | None:
    return moving.run(_settings().own_dsns, int(slot), shard) if slot.isdecimal() else None


_STEPS = {
    "migrate": Step("bring the shards' schemas up to date", lambda: migrating.run(_settings())),
    "move-slot": Step("move a slot's rows to another shard", _move, ("SLOT", "SHARD")),
}

if __name__ == "__main__":
    sys.exit(main("svc_message", Settings, serve, _STEPS))
