"""An instance of a service, as the others see it."""

import json
from dataclasses import dataclass

from mesh.ids import new_ulid, ulid_text

_FIELDS = ("address", "zone", "version")


def new_instance_id() -> str:
    """An id for this start of this process."""
    return ulid_text(new_ulid())


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of a service; its id is new at each start."""

    instance_id: str
    service: str
    address: str
    zone: str = ""
    version: str = ""

    def to_json(self) -> bytes:
        """As it stands in the registry; the id and the service are in the key."""
        return json.dumps({name: getattr(self, name) for name in _FIELDS}).encode()

    @classmethod
    def from_json(cls, instance_id: str, service: str, value: bytes) -> "Instance":
        """Read one; unknown fields are a newer version's. Raises ValueError."""
        try:
            fields = json.loads(value)
            address, zone, version = (str(fields.get(name, "")) for name in _FIELDS)
        except (AttributeError, ValueError) as error:
            raise ValueError("an instance is a JSON object") from error
        if not address:
            raise ValueError("an instance has an address")
        return cls(instance_id, service, address, zone, version)
