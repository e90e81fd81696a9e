"""Our own services as processes: their settings, and asking them whether they are ready."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from mesh.tls import Identity, TlsSettings
from whimbrel_cli.stack.ports import LOOPBACK
from whimbrel_cli.stack.programs import Command

_CHECK_SECONDS = 1.0
# Whoever holds a certificate may ask how an instance does.
PROBER = "gateway"


@dataclass(frozen=True)
class Service:
    """The recipe of one instance of a service."""

    name: str  # of the instance, such as message-1
    service: str
    settings: Callable[[], Mapping[str, str]]  # asked at each start
    prober: Callable[[], TlsSettings]  # as whom it is asked
    client_ca: Path | None = None  # who certifies a gateway's listener

    async def prepare(self) -> None:
        return None

    def command(self, port: int, log: Path) -> Command:
        return Command(
            self.name,
            [sys.executable, "-m", f"svc_{self.service}"],
            log,
            env={**self.settings(), f"WHIMBREL_{self.service.upper()}_LISTEN": self.address(port)},
        )

    async def answers(self, port: int) -> bool:
        """Ask the instance's own listener, as a load balancer would."""
        async with self._channel(port) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=HealthCheckRequest.SerializeToString,
                response_deserializer=HealthCheckResponse.FromString,
            )
            try:
                answer = await check(HealthCheckRequest(), timeout=_CHECK_SECONDS)
            except grpc.RpcError:
                return False
        return answer.status == HealthCheckResponse.SERVING

    def _channel(self, port: int) -> grpc.aio.Channel:
        if self.service == "gateway":  # a listener for clients
            return client_channel(self.address(port), self.client_ca)
        return Identity(self.prober(), PROBER).channel(self.address(port), self.service)

    def address(self, port: int) -> str:
        return f"{LOOPBACK}:{port}"


def client_channel(
    address: str, ca: Path | None, options: Sequence[tuple[str, Any]] = ()
) -> grpc.aio.Channel:
    """A channel to a gateway as clients have it; with a file of authorities, by TLS."""
    if ca is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    return grpc.aio.secure_channel(address, credentials, options=options)
