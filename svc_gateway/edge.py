"""What all streams of one gateway share, and who a stream belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from mesh.failpoints import Failpoints
from mesh.limits import Limiter
from svc_gateway.attach import Attach
from svc_gateway.reads import Peer
from svc_gateway.sides import SessionLimits
from svc_gateway.tally import Tally
from svc_gateway.ticks import Ticks
from svc_gateway.to_service import Address
from svc_gateway.traces import Traces
from svc_gateway.window import Budget

if TYPE_CHECKING:
    from svc_gateway.stream import DeviceStream
    from whimbrel.presence.v1 import state_pb2


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


class Presences(Protocol):
    """What open chats are told."""

    def watch(self, stream: "DeviceStream", peers: Sequence[Peer]) -> None: ...
    def unwatch(self, stream: "DeviceStream", peers: Sequence[Peer]) -> None: ...
    def writing(
        self, stream: "DeviceStream", peer: Peer, activity: "state_pb2.Activity.ValueType"
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What all streams of one gateway share."""

    authenticator: Authenticator
    attach: Attach
    sessions: Sessions
    presences: Presences
    limits: SessionLimits
    limiter: Limiter
    budget: Budget
    failpoints: Failpoints
    tally: Tally
    ticks: Ticks | None = None  # None while nobody listens, and
    traces: Traces | None = None
    ticks_to_write: int = 30
