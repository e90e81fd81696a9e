"""What has arrived at the simulators, for tests and for `whimbrel pushes`."""

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Arrival:
    """A push that a provider has taken."""

    provider: str
    device: str  # a digest of the token, never the token
    is_urgent: bool
    payload: str
    at: str  # ISO 8601


class Arrivals:
    """The pushes that were taken, in order; each is also a line of a file, if there is one."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._arrived = asyncio.Condition()
        self.all: list[Arrival] = []

    async def add(self, provider: str, token: str, payload: bytes, *, is_urgent: bool) -> None:
        """Note one."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        arrival = Arrival(provider, short(token), is_urgent, payload.decode(), at)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(asdict(arrival)) + "\n")
        async with self._arrived:
            self.all.append(arrival)
            self._arrived.notify_all()

    async def until(self, count: int) -> list[Arrival]:
        """Return when so many have arrived in all."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.all) >= count)
            return list(self.all)


def short(token: str) -> str:
    """What stands for a token where people can see it."""
    return hashlib.sha256(token.encode()).hexdigest()[:8]


@dataclass(slots=True)
class Rules:
    """What a test may have a simulator do, and what it has found wrong."""

    next: list[object] = field(default_factory=list)  # replies and faults, before any rule
    gone: dict[str, int] = field(default_factory=dict)  # tokens, and since when in milliseconds
    refused: list[str] = field(default_factory=list)  # the reasons of refusals by rule
