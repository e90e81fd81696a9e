"""How the stores tell that they can be reached, or cannot."""

from typing import Protocol


class OnHealth(Protocol):
    """Hears how a shared dependency does; `mesh.health.Health.dependency` is one."""

    def __call__(self, name: str, /, *, is_well: bool) -> None: ...


def silent(_name: str, /, *, is_well: bool) -> None:
    """Nobody wants to know."""
