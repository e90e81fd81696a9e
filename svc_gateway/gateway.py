"""One gateway, put together: streams, sessions and the way to the message service."""

import asyncio

from mesh.auth import TokenVerifier
from mesh.channels import Channels
from mesh.clock import Clock, SystemClock
from mesh.failpoints import Failpoints
from svc_gateway.attach import Attach, AttachLimits, Credentials
from svc_gateway.edge import Edge
from svc_gateway.pushes import Pushes
from svc_gateway.servicer import Authenticator, GatewayServicer
from svc_gateway.session import SessionLimits
from svc_gateway.sessions import Sessions
from svc_gateway.settings import Settings
from svc_gateway.stream import DeviceStream
from svc_gateway.window import Budget

_SECONDS_BETWEEN_SWEEPS = 5


class Gateway:
    """Everything of an instance but its server and the stores it talks to."""

    def __init__(
        self,
        settings: Settings,
        *,
        instance_id: str,
        channels: Channels,
        credentials: Credentials,
        verifier: TokenVerifier,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self.sessions = Sessions(token_grace=settings.token_grace)
        self.attach = Attach(
            channels,
            credentials,
            instance_id=instance_id,
            pushes=Pushes(self.sessions, on_lost=lambda: None),
            limits=AttachLimits(
                answer_within=settings.answer_within,
                most_unanswered_bytes=settings.unanswered_budget,
            ),
            clock=self._clock,
        )
        self.edge = Edge(
            attach=self.attach,
            sessions=self.sessions,
            limits=session_limits(settings),
            budget=Budget(settings.unacked_budget),
            failpoints=Failpoints(settings.failpoint),
            ticks_to_write=_ticks(settings.slow_consumer.total_seconds()),
        )
        self.servicer = GatewayServicer(
            Authenticator(verifier),
            self.edge,
            max_sessions=settings.max_sessions,
            on_closed=self._on_closed,
        )

    async def run(self) -> None:
        """Do what goes on between the calls; ends by cancellation only."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.attach.run(), name="attach")
            tasks.create_task(self._tick(), name="tick")

    async def _tick(self) -> None:
        seconds = 0
        while True:
            await self._clock.sleep(1)
            seconds += 1
            self.sessions.tick()
            if seconds % _SECONDS_BETWEEN_SWEEPS == 0:
                self.sessions.end_expired(self._clock.now())

    def _on_closed(self, stream: DeviceStream) -> None:
        self.sessions.closed(stream)


def session_limits(settings: Settings) -> SessionLimits:
    """What one session may use, as set."""
    return SessionLimits(
        max_unacked=settings.max_unacked,
        max_unacked_bytes=settings.max_unacked_bytes,
        max_outstanding_sends=settings.max_outstanding_sends,
        max_outstanding_bytes=settings.max_outstanding_bytes,
        ticks_without_ack=_ticks(settings.slow_consumer.total_seconds()),
        ticks_to_open=_ticks(settings.open_within.total_seconds()),
    )


def _ticks(seconds: float) -> int:
    return max(1, round(seconds))
