"""What a workload asks of the load process, and what the two say to each other."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

LINE_BYTES = 16 * 1024 * 1024  # the longest line that the two say


@dataclass(frozen=True)
class Person:
    """An account with one device, and the token that proves it."""

    user_id: bytes
    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the load process."""

    workload: str
    gateways: Sequence[str]
    people: Sequence[Person]
    payload_bytes: int
    outstanding: int = 1
    warm_up: float = 0.0  # seconds of traffic before anything counts
    seconds: float = 0.0  # of measured traffic; 0: until `messages`
    messages: int = 0
    mark_every: int = 0  # tell of every so many messages; 0: never
    rounds: int = 1
    presence: Sequence[str] = field(
        default_factory=list
    )  # addresses of the instances' internal listeners
    ca: str = ""  # file with who certifies the gateways; empty: they speak plaintext
    data: str = ""  # the mesh's directory, for who speaks as a gateway
    # The shards' DSNs, for what only they can tell.
    shards: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), default=lambda raw: base64.b64encode(raw).decode())

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read what `to_json` wrote."""
        fields = json.loads(line)
        fields["people"] = [
            Person(base64.b64decode(person["user_id"]), person["token"])
            for person in fields["people"]
        ]
        return cls(**fields)


@dataclass(frozen=True)
class Milestone:
    """The load process has come so far; it goes on when it is answered."""

    name: str
    done: int = 0  # messages that are finished
    seconds: float = 0.0  # the load's own clock
    result: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(line))
