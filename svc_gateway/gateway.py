"""One gateway, put together: streams, sessions and the way to the message service."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from mesh.auth import TokenVerifier
from mesh.channels import Channels
from mesh.clock import Clock, SystemClock
from mesh.failpoints import Failpoints
from mesh.limits import Buckets, Limiter, read_overrides
from mesh.metrics import SESSIONS, UNACKED_BYTES
from mesh.tasks import supervised
from mesh.telemetry import OFF, Telemetry
from mesh.tls import Identity
from svc_gateway.attach import Attach, AttachLimits
from svc_gateway.authenticator import Authenticator
from svc_gateway.balance import Balance
from svc_gateway.drain import send_away, until_gone
from svc_gateway.edge import Edge
from svc_gateway.followers import Followers
from svc_gateway.forward import METHODS, Forwarder, Instances
from svc_gateway.heads import Heads
from svc_gateway.limits import DEFAULTS, Doorkeeper
from svc_gateway.presence import PresenceLimits, Presences
from svc_gateway.pushes import Pushes
from svc_gateway.registrar import Registrar, Registry
from svc_gateway.servicer import GatewayServicer
from svc_gateway.sessions import Sessions
from svc_gateway.settings import Settings
from svc_gateway.shedding import NOBODY_ELSE, Board, Shedding
from svc_gateway.sides import SessionLimits
from svc_gateway.stream import DeviceStream
from svc_gateway.tally import Tally
from svc_gateway.ticks import Ticks
from svc_gateway.traces import Traces
from svc_gateway.window import Budget

log = structlog.get_logger(__name__)

# Those beside svc_message that answer calls of clients.
_SERVICES = sorted({access.answered_by for access in METHODS.values()} - {"message"})

_SECONDS_BETWEEN_SWEEPS = 5


class Gateway:
    """Everything of an instance but its server and the stores it talks to."""

    def __init__(
        self,
        settings: Settings,
        *,
        instance_id: str,
        channels: Channels,
        identity: Identity,
        verifier: TokenVerifier,
        registry: Registry,
        buckets: Buckets,
        board: Board = NOBODY_ELSE,
        telemetry: Telemetry = OFF,
        on_redis: Callable[[bool], None] = lambda _is_reachable: None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._tally = Tally(telemetry)
        self._ticks = Ticks(telemetry) if telemetry.is_on else None
        self._traces = Traces(telemetry) if telemetry.is_on else None
        self._failpoints = Failpoints(settings.failpoint)
        self.sessions = Sessions(token_grace=settings.token_grace)
        self.attach = self._new_attach(channels, instance_id)
        self.followers = Followers(
            self.attach, self.sessions, clock=self._clock, traces=self._traces
        )
        self.heads = self._new_heads()
        self.registrar = self._new_registrar(registry, on_redis)
        self.presences = self._new_presences(Channels(identity), instance_id)
        self.shedding = self._new_shedding(board, instance_id, telemetry)
        self.sessions.on_opened = self._on_opened
        overrides, _ = read_overrides(settings.limits.encode(), DEFAULTS)
        self.limiter = Limiter(
            {**DEFAULTS, **(overrides or {})}.values(),
            buckets,
            telemetry=telemetry,
            clock=self._clock,
        )
        authenticator = Authenticator(verifier)
        self.edge = self._new_edge(authenticator)
        self.servicer = GatewayServicer(
            authenticator,
            self.edge,
            max_sessions=settings.max_sessions,
            on_closed=self._on_closed,
        )
        # What clients call beside their streams; message's are chosen as the streams have them.
        self.services = {name: Channels(identity) for name in _SERVICES}
        answering: dict[str, Instances] = {"message": self.attach, **self.services}
        self.forwarder = Forwarder(
            authenticator,
            answering,
            Doorkeeper(self.limiter, trusted_proxies=settings.trusted_proxies),
            telemetry,
        )
        telemetry.gauge(SESSIONS, lambda: len(self.servicer.streams))
        telemetry.gauge(UNACKED_BYTES, lambda: self.edge.budget.used)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve there. Comes last: what no other handler knows is forwarded, or refused."""
        self.servicer.add_to(server)
        server.add_generic_rpc_handlers((self.forwarder,))

    async def run(self) -> None:
        """Do what goes on between the calls; ends by cancellation only."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.attach.run(), name="attach")
            tasks.create_task(self.registrar.run(), name="registrar")
            tasks.create_task(self.presences.run(), name="presences")
            for name, work in (
                ("heads", self.heads.run),
                ("followers", self.followers.run),
                ("shedding", self.shedding.run),
                ("tick", self._tick),
            ):
                tasks.create_task(supervised(work, name=name, clock=self._clock), name=name)

    async def drain(self) -> None:
        """Send all devices away, and leave no route behind."""
        self.servicer.refuse_more()
        await send_away(
            self.servicer.streams,
            spread=self._settings.drain_spread,
            retire=self._retire,
            clock=self._clock,
        )
        if not await until_gone(self.servicer.gone, self._settings.drain):
            log.warning("streams are cut off", streams=len(self.servicer.streams))
        await self.registrar.leave()

    def _retire(self, stream: DeviceStream) -> None:
        stream.session.retire()
        self._failpoints.hit("drain.during")

    async def close(self) -> None:
        """Close what calls of clients go by."""
        await self.presences.close()
        for channels in self.services.values():
            await channels.close()

    def _new_attach(self, channels: Channels, instance_id: str) -> Attach:
        return Attach(
            channels,
            instance_id=instance_id,
            pushes=Pushes(
                self.sessions,
                on_lost=self._on_lost,
                on_channel=self._on_channel,
            ),
            tally=self._tally,
            limits=AttachLimits(
                answer_within=self._settings.answer_within,
                most_unanswered_bytes=self._settings.unanswered_budget,
            ),
            clock=self._clock,
        )

    def _new_heads(self) -> Heads:
        return Heads(
            self.attach,
            self.sessions,
            interval=self._settings.heads_interval,
            interval_blind=self._settings.heads_interval_blind,
            spread=self._settings.heads_spread,
            on_round=self.followers.compare,
            clock=self._clock,
        )

    def _new_registrar(self, registry: Registry, on_redis: Callable[[bool], None]) -> Registrar:
        return Registrar(
            registry,
            self.sessions,
            self.heads,
            renewal=self._settings.registry_renewal,
            canary_interval=self._settings.canary_interval,
            failpoints=self._failpoints,
            on_reachable=on_redis,
            clock=self._clock,
        )

    def _new_presences(self, channels: Channels, instance_id: str) -> Presences:
        return Presences(
            channels,
            gateway_id=instance_id,
            limits=PresenceLimits(
                max_watches=self._settings.max_watches,
                most_watches=self._settings.most_watches,
                heartbeat=self._settings.heartbeat,
            ),
            tally=self._tally,
            clock=self._clock,
        )

    def _new_shedding(self, board: Board, instance_id: str, telemetry: Telemetry) -> Shedding:
        return Shedding(
            self.sessions,
            board,
            instance_id=instance_id,
            balance=Balance(floor=self._settings.shed_floor),
            interval=self._settings.shed_interval,
            telemetry=telemetry,
            clock=self._clock,
        )

    def _new_edge(self, authenticator: Authenticator) -> Edge:
        return Edge(
            authenticator=authenticator,
            attach=self.attach,
            sessions=self.sessions,
            presences=self.presences,
            limits=session_limits(self._settings),
            limiter=self.limiter,
            budget=Budget(self._settings.unacked_budget),
            failpoints=self._failpoints,
            tally=self._tally,
            ticks=self._ticks,
            traces=self._traces,
            ticks_to_write=_ticks(self._settings.slow_consumer.total_seconds()),
        )

    async def _tick(self) -> None:
        seconds = 0
        while True:
            await self._clock.sleep(1)
            seconds += 1
            self.sessions.tick()
            self._tally.tell()
            if seconds % _SECONDS_BETWEEN_SWEEPS == 0:
                self.sessions.end_expired(self._clock.now())

    def _on_opened(self, stream: DeviceStream) -> None:
        self.registrar.opened(stream)
        self.presences.opened(stream)
        self.followers.opened(stream)

    def _on_closed(self, stream: DeviceStream) -> None:
        # Who is sent away is back elsewhere in a moment.
        is_sent = self.servicer.is_draining or stream.session.is_moved
        self.presences.closed(stream, is_leaving=not is_sent)
        self.followers.closed(stream)
        if self.sessions.closed(stream):
            self.registrar.closed(stream)

    def _on_lost(self) -> None:
        self.heads.soon()

    def _on_channel(self, kind: str, push: Any, trace: bytes) -> None:
        self.followers.take(kind, push, trace)


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
