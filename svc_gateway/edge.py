"""What all streams of one gateway share, and who a stream belongs to."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from mesh.failpoints import Failpoints
from svc_gateway.attach import Attach
from svc_gateway.sides import SessionLimits
from svc_gateway.tally import Tally
from svc_gateway.to_service import Address
from svc_gateway.window import Budget

if TYPE_CHECKING:
    from svc_gateway.stream import DeviceStream


@dataclass(frozen=True, slots=True)
class Device:
    """Who has connected, as its token proves."""

    address: Address
    credential_version: int
    expires_at: datetime

    @property
    def user_id(self) -> bytes:
        return self.address[0]


class Authenticator(Protocol):
    """Who reads tokens."""

    def renewed(self, device: Device, token: str) -> Device:
        """The same device by its next token; raises Unauthenticated."""


class Sessions(Protocol):
    """Who is connected here."""

    def opened(self, stream: "DeviceStream") -> None: ...
    def watch(self, stream: "DeviceStream") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What all streams of one gateway share."""

    authenticator: Authenticator
    attach: Attach
    sessions: Sessions
    limits: SessionLimits
    budget: Budget
    failpoints: Failpoints
    tally: Tally
    ticks_to_write: int = 30
