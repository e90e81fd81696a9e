"""Makes every key that the services of a mesh need, in files named as the chart names them.

usage: scripts/keys.py DIRECTORY    which must not be there yet
"""

import json
import secrets
import sys
from pathlib import Path

from mesh.keys import KeySet

# Who signs, with a key of its own: the tokens of devices, and services that call others.
_SIGNERS = ("token", "gateway", "message", "presence")
# Who calls svc_message, which has one file for all of them.
_CALLERS_OF_MESSAGE = ("gateway", "presence")
_SEALING_BYTES = 32


def make(directory: Path) -> None:
    """Write them, for their owner only. Raises OSError if the directory is there."""
    directory.mkdir(mode=0o700, parents=True)
    keys = {name: KeySet.generate() for name in _SIGNERS}
    for name, key in keys.items():
        key.save(directory / f"{name}.json")
        key.save_public(directory / f"{name}-public.json")
    callers = KeySet.joined(keys[name] for name in _CALLERS_OF_MESSAGE)
    callers.save_public(directory / "message-callers.json")
    sealing = directory / "push-token-keys.json"
    sealing.touch(mode=0o600)
    sealing.write_text(json.dumps({secrets.token_hex(4): secrets.token_hex(_SEALING_BYTES)}))


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]))
    except FileExistsError:
        sys.exit(f"{sys.argv[1]} is there already: keys are never made over others")
