"""What our services are told at their start: files in the data directory, and settings."""

import json
from collections.abc import Mapping
from pathlib import Path

from mesh.keys import KeySet
from whimbrel_cli.stack.files import write_private
from whimbrel_cli.stack.stack import Stack


class Environment:
    """The files and settings that the instances of one mesh share."""

    def __init__(self, data: Path, stack: Stack) -> None:
        self._stack = stack
        self.signing_keys = data / "keys" / "signing.json"  # stay with svc_message
        self.public_keys = data / "keys" / "public.json"
        self.shards = data / "shards.json"

    def write(self, shards: Mapping[str, str]) -> None:
        """Write what the services read; keys are made the first time and kept."""
        write_private(self.shards, json.dumps(shards, indent=2) + "\n")
        self.signing_keys.parent.mkdir(mode=0o700, exist_ok=True)
        if not self.signing_keys.exists():
            KeySet.generate().save(self.signing_keys)
        if not self.public_keys.exists():
            KeySet.load(self.signing_keys).save_public(self.public_keys)

    def of_message(self) -> dict[str, str]:
        return {
            "WHIMBREL_MESSAGE_SHARDS": str(self.shards),
            "WHIMBREL_MESSAGE_SIGNING_KEYS": str(self.signing_keys),
            "WHIMBREL_MESSAGE_ETCD": self._stack.etcd_endpoint,
            "WHIMBREL_MESSAGE_REDIS": self._stack.redis_url,
        }

    def of_gateway(self) -> dict[str, str]:
        return {
            "WHIMBREL_GATEWAY_PUBLIC_KEYS": str(self.public_keys),
            "WHIMBREL_GATEWAY_ETCD": self._stack.etcd_endpoint,
            "WHIMBREL_GATEWAY_REDIS": self._stack.redis_url,
        }
