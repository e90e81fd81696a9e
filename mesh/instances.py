"""An instance of a service, as the others see it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mesh.ids import new_ulid, ulid_text

_FIELDS = ("address", "zone", "version")


def new_instance_id() -> str:
    """An id for this start of this process: a ULID, so a later start has a greater one."""
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


def newest_at_each_address(instances: Mapping[str, Instance]) -> dict[str, Instance]:
    """Leave out those that have started again at their address: their old lease still lasts."""
    newest: dict[str, str] = {}
    for instance_id, instance in instances.items():
        newest[instance.address] = max(instance_id, newest.get(instance.address, ""))
    return {instance_id: instances[instance_id] for instance_id in newest.values()}
