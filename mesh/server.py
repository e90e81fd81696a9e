"""How a service's gRPC server is built, bound, run and stopped; knows no service."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc
import structlog
import uvloop

from mesh.interceptors import ErrorInterceptor, MetadataLimit

log = structlog.get_logger(__name__)

_KIB = 1024
_METADATA_BYTES = 16 * _KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """The bounds of one listening port."""

    max_concurrent_streams: int
    max_receive_bytes: int
    max_send_bytes: int
    max_metadata_bytes: int = _METADATA_BYTES
    keepalive: timedelta = timedelta(seconds=30)
    keepalive_timeout: timedelta = timedelta(seconds=10)
    # A client that pings more often than this is sent away.
    min_ping_interval: timedelta = timedelta(seconds=20)

    def options(self, *, reuse_port: bool = False) -> list[tuple[str, int]]:
        """The same as gRPC's channel arguments."""
        return [
            ("grpc.max_concurrent_streams", self.max_concurrent_streams),
            ("grpc.max_receive_message_length", self.max_receive_bytes),
            ("grpc.max_send_message_length", self.max_send_bytes),
            # The transport's own limits (soft: refuses by chance) come after the interceptor's.
            ("grpc.max_metadata_size", 2 * self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", 2 * self.max_metadata_bytes),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.keepalive_timeout)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            (
                "grpc.http2.min_ping_interval_without_data_ms",
                _milliseconds(self.min_ping_interval),
            ),
            ("grpc.so_reuseport", int(reuse_port)),
            # Nobody asks for its records, and each connection would keep some.
            ("grpc.enable_channelz", 0),
        ]


# Few streams a connection: 50,000 resets on one with the default froze all others for 40 s.
CLIENT_LISTENER = Listener(
    max_concurrent_streams=8, max_receive_bytes=256 * _KIB, max_send_bytes=256 * _KIB
)
INTERNAL_LISTENER = Listener(
    max_concurrent_streams=1024, max_receive_bytes=4096 * _KIB, max_send_bytes=4096 * _KIB
)
# For probes, which send next to nothing.
HEALTH_LISTENER = Listener(
    max_concurrent_streams=8, max_receive_bytes=4 * _KIB, max_send_bytes=4 * _KIB
)


def new_server(
    listener: Listener,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    reuse_port: bool = False,
) -> grpc.aio.Server:
    """A server whose handlers may raise WhimbrelError; `interceptors` run inside that guard."""
    return grpc.aio.server(
        interceptors=[
            MetadataLimit(listener.max_metadata_bytes),
            ErrorInterceptor(),
            *interceptors,
        ],
        options=listener.options(reuse_port=reuse_port),
    )


def bind(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None
) -> str:
    """Take the address and return it with its real port; OSError names one that is taken."""
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}") from error
    return f"{address.rpartition(':')[0]}:{port}"


@contextlib.asynccontextmanager
async def running(server: grpc.aio.Server, grace: timedelta) -> AsyncIterator[None]:
    """Serve inside the block; on leaving it refuse new calls and give open ones the grace."""
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace.total_seconds())


def run_until_signalled(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main` on uvloop: the first SIGTERM or SIGINT sets its event, the second exits."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(main))


async def _until_signalled(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("second signal: exiting without draining", signal=number.name)
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        log.info("draining", signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await main(stop)


def _milliseconds(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
