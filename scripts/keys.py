"""Makes every key that the services of a mesh need, in files named as the chart names them.

usage: scripts/keys.py DIRECTORY    which must not be there yet
"""

import json
import secrets
import sys
from pathlib import Path

from mesh.authority import Authority
from mesh.keys import KeySet

_SERVICES = ("gateway", "message", "presence", "push", "media")
_SEALING_BYTES = 32


def make(directory: Path) -> None:
    """Write them, for their owner only. Raises OSError if the directory is there."""
    directory.mkdir(mode=0o700, parents=True)
    tokens = KeySet.generate()
    tokens.save(directory / "token.json")
    tokens.save_public(directory / "token-public.json")
    # What certifies stays out of the cluster: it is in a directory of its own.
    authority = Authority.at(directory / "authority")
    (directory / "ca.pem").write_bytes(authority.ca.read_bytes())
    for name in _SERVICES:
        authority.issue(name, into=directory)
    sealing = directory / "push-token-keys.json"
    sealing.touch(mode=0o600)
    sealing.write_text(json.dumps({secrets.token_hex(4): secrets.token_hex(_SEALING_BYTES)}))


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]))
    except FileExistsError:
        sys.exit(f"{sys.argv[1]} is there already: keys are never made over others")
