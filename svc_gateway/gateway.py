"""One gateway, put together: streams, sessions and the way to the message service."""

import asyncio
from collections.abc import Callable

import grpc
import structlog

from mesh.auth import TokenVerifier
from mesh.channels import Channels
from mesh.clock import Clock, SystemClock
from mesh.failpoints import Failpoints
from mesh.metrics import SESSIONS, UNACKED_BYTES
from mesh.telemetry import OFF, Telemetry
from svc_gateway.attach import Attach, AttachLimits, Credentials
from svc_gateway.authenticator import Authenticator
from svc_gateway.drain import send_away, until_gone
from svc_gateway.edge import Edge
from svc_gateway.forward import Forwarder
from svc_gateway.heads import Heads
from svc_gateway.pushes import Pushes
from svc_gateway.registrar import Registrar, Registry
from svc_gateway.servicer import GatewayServicer
from svc_gateway.sessions import Sessions
from svc_gateway.settings import Settings
from svc_gateway.sides import SessionLimits
from svc_gateway.stream import DeviceStream
from svc_gateway.tally import Tally
from svc_gateway.window import Budget

log = structlog.get_logger(__name__)

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
        registry: Registry,
        telemetry: Telemetry = OFF,
        on_redis: Callable[[bool], None] = lambda _is_reachable: None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._tally = Tally(telemetry)
        self.sessions = Sessions(token_grace=settings.token_grace)
        self.attach = Attach(
            channels,
            credentials,
            instance_id=instance_id,
            pushes=Pushes(self.sessions, on_lost=self._on_lost),
            tally=self._tally,
            limits=AttachLimits(
                answer_within=settings.answer_within,
                most_unanswered_bytes=settings.unanswered_budget,
            ),
            clock=self._clock,
        )
        self.heads = Heads(
            self.attach,
            self.sessions,
            interval=settings.heads_interval,
            interval_blind=settings.canary_interval,
            spread=settings.heads_spread,
            clock=self._clock,
        )
        failpoints = Failpoints(settings.failpoint)
        self.registrar = Registrar(
            registry,
            self.sessions,
            self.heads,
            renewal=settings.registry_renewal,
            canary_interval=settings.canary_interval,
            failpoints=failpoints,
            on_reachable=on_redis,
            clock=self._clock,
        )
        self.sessions.on_opened = self.registrar.opened
        authenticator = Authenticator(verifier)
        self.edge = Edge(
            authenticator=authenticator,
            attach=self.attach,
            sessions=self.sessions,
            limits=session_limits(settings),
            budget=Budget(settings.unacked_budget),
            failpoints=failpoints,
            tally=self._tally,
            ticks_to_write=_ticks(settings.slow_consumer.total_seconds()),
        )
        self.servicer = GatewayServicer(
            authenticator,
            self.edge,
            max_sessions=settings.max_sessions,
            on_closed=self._on_closed,
        )
        telemetry.gauge(SESSIONS, lambda: len(self.servicer.streams))
        telemetry.gauge(UNACKED_BYTES, lambda: self.edge.budget.used)
        self.forwarder = Forwarder(authenticator, self.attach, channels, credentials)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve there. Comes last: what no other handler knows is forwarded, or refused."""
        self.servicer.add_to(server)
        server.add_generic_rpc_handlers((self.forwarder,))

    async def run(self) -> None:
        """Do what goes on between the calls; ends by cancellation only."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.attach.run(), name="attach")
            tasks.create_task(self.registrar.run(), name="registrar")
            tasks.create_task(self.heads.run(), name="heads")
            tasks.create_task(self._tick(), name="tick")

    async def drain(self) -> None:
        """Send all devices away, and leave no route behind."""
        self.servicer.refuse_more()
        await send_away(
            self.servicer.streams,
            spread=self._settings.drain_spread,
            failpoints=self.edge.failpoints,
            clock=self._clock,
        )
        if not await until_gone(self.servicer.gone, self._settings.drain):
            log.warning("streams are cut off", streams=len(self.servicer.streams))
        await self.registrar.leave()

    async def _tick(self) -> None:
        seconds = 0
        while True:
            await self._clock.sleep(1)
            seconds += 1
            self.sessions.tick()
            self._tally.tell()
            if seconds % _SECONDS_BETWEEN_SWEEPS == 0:
                self.sessions.end_expired(self._clock.now())

    def _on_closed(self, stream: DeviceStream) -> None:
        if self.sessions.closed(stream):
            self.registrar.closed(stream)

    def _on_lost(self) -> None:
        self.heads.soon()


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
