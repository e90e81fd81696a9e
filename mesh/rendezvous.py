"""Which instance a key belongs to: highest random weight, so that a leaver moves only its own."""

import hashlib
from collections.abc import Iterable

_MOST_CACHED = 32768


class Rendezvous:
    """A pick over one fixed set of instances; a new set is a new object.

    Everybody with the same set picks the same instance for a key. When an instance leaves, only
    its keys move; when one joins, it takes an even share from each of the others.
    """

    def __init__(self, instance_ids: Iterable[str]) -> None:
        self.instance_ids = tuple(sorted(set(instance_ids)))
        self._seeds = [(_seed(instance_id), instance_id) for instance_id in self.instance_ids]
        self._picked: dict[int | bytes, str] = {}

    def __len__(self) -> int:
        return len(self.instance_ids)

    def pick(self, key: int | bytes) -> str | None:
        """The key's instance, or None when there is no instance at all."""
        picked = self._picked.get(key)
        if picked is not None or not self._seeds:
            return picked
        wire = _wire(key)
        picked = max((_weight(seed, wire), instance_id) for seed, instance_id in self._seeds)[1]
        if len(self._picked) >= _MOST_CACHED:
            self._picked.clear()
        self._picked[key] = picked
        return picked

    def ranked(self, key: int | bytes) -> list[str]:
        """All instances, the key's own first, then in the order of fail-over."""
        wire = _wire(key)
        weighed = [(_weight(seed, wire), instance_id) for seed, instance_id in self._seeds]
        return [instance_id for _, instance_id in sorted(weighed, reverse=True)]


def _wire(key: int | bytes) -> bytes:
    return key if isinstance(key, bytes) else key.to_bytes(8, "big")


def _seed(instance_id: str) -> bytes:
    return hashlib.blake2b(instance_id.encode(), digest_size=32).digest()


def _weight(seed: bytes, wire: bytes) -> bytes:
    return hashlib.blake2b(wire, key=seed, digest_size=8).digest()
