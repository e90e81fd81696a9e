"""What a send must be before it is passed on; the message service decides everything else."""

from collections.abc import Sequence
from typing import Protocol

from mesh.ids import ID_BYTES
from svc_gateway.window import MOST_BODY_BYTES


class Body(Protocol):
    """One ciphertext."""

    @property
    def type(self) -> int: ...
    @property
    def ciphertext(self) -> bytes: ...


class Bodies(Protocol):
    """A ciphertext for each device."""

    @property
    def bodies(self) -> Sequence[Body]: ...


class Send(Protocol):
    """The parts of a send that are looked at."""

    @property
    def client_message_id(self) -> bytes: ...
    @property
    def user_id(self) -> bytes: ...
    @property
    def group_id(self) -> bytes: ...
    @property
    def after(self) -> bytes: ...
    @property
    def shared(self) -> Body: ...
    @property
    def per_device(self) -> Bodies: ...


Flaw = tuple[str, dict[str, str]]


def flaw_of(send: Send) -> Flaw | None:
    """The reason, with its metadata, for which the edge refuses a send; None if it is well."""
    return _flaw_of_ids(send) or _flaw_of_bodies(send.per_device.bodies or (send.shared,))


def _flaw_of_ids(send: Send) -> Flaw | None:
    if len(send.client_message_id) != ID_BYTES:
        return _field("client_message_id", "16 bytes")
    if len(send.user_id or send.group_id) != ID_BYTES:
        return _field("to", "a user_id or a group_id of 16 bytes")
    if len(send.after) not in (0, ID_BYTES):
        return _field("after", "empty or 16 bytes")
    return None


def _flaw_of_bodies(bodies: Sequence[Body]) -> Flaw | None:
    size = 0
    for body in bodies:
        if not body.ciphertext:
            return "BODY_EMPTY", {}
        if not body.type:
            return _field("type", "a ciphertext type")
        size += len(body.ciphertext)
    if size > MOST_BODY_BYTES:
        return "BODY_TOO_LARGE", {"allowed": str(MOST_BODY_BYTES)}
    return None


def _field(name: str, allowed: str) -> Flaw:
    return "FIELD_INVALID", {"field": name, "allowed": allowed}
