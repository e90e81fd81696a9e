"""Who calls on behalf of a person, as the gateway has verified it; asks no store."""

from dataclasses import dataclass
from typing import Any

from mesh.errors import PermissionDenied, TokenMissing
from mesh.ids import parse_ulid

_PRIMARY = 1
# The gateway adds them for a caller whose token it has verified, and drops a client's own.
_USER = "whimbrel-user-id"
_DEVICE = "whimbrel-device-id"
_CREDENTIAL = "whimbrel-credential-version"


@dataclass(frozen=True, slots=True)
class Caller:
    """A device, and which of its credentials its token was made for.

    A token outlives what it stands for by minutes: whoever changes something for the caller asks
    the store whether the credential still holds.
    """

    user_id: bytes
    device_id: int
    credential_version: int

    def is_still(self, credential_version: int) -> bool:
        """Whether the device's credential is the one that the token was made for."""
        return credential_version <= self.credential_version

    def demand_primary(self) -> None:
        """Raise PermissionDenied unless it is the account's primary device."""
        if self.device_id != _PRIMARY:
            raise PermissionDenied("only the primary device may do this")


def caller_of(context: Any) -> Caller:
    """The device that calls. Raises TokenMissing if the gateway named none."""
    known = dict(context.invocation_metadata() or ())
    try:
        return Caller(parse_ulid(known[_USER]), int(known[_DEVICE]), int(known[_CREDENTIAL]))
    except (KeyError, ValueError):
        raise TokenMissing("a token is needed") from None
