"""The file that says where the shards are."""

import json
from pathlib import Path

from mesh.store_tls import PLAINTEXT, StoreTls, dsn_problems, dsn_with


def read_shards(path: Path, tls: StoreTls = PLAINTEXT) -> dict[str, str]:
    """The shards' DSNs by name. Raises ValueError without quoting the file: it holds passwords."""
    try:
        shards = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{path} is not an object of shards")
    if not all(isinstance(dsn, str) and name for name, dsn in shards.items()):
        raise ValueError(f"{path}: each shard has a name and a DSN")
    wrong = [f"{name}: {why}" for name, dsn in shards.items() for why in dsn_problems(dsn)]
    if wrong:
        raise ValueError("; ".join(wrong))
    return {name: dsn_with(tls, dsn) for name, dsn in shards.items()}
