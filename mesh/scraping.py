"""The port at which Prometheus finds the metrics: HTTP, and by certificates if there are any.

Its threads are of no use to who does not speak: each connection has so many seconds, the handshake
among them, and nobody waits for another's.
"""

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from mesh.telemetry import ScrapeTls, Telemetry, TelemetrySettings
from mesh.tls import Certificates, ListenerSettings, Renewed

log = structlog.get_logger(__name__)

_SECONDS = 10.0


@contextlib.contextmanager
def scraped(
    settings: TelemetrySettings, registry: CollectorRegistry, telemetry: Telemetry
) -> Iterator[None]:
    """Show the registry inside the block. Raises OSError for a port that is taken."""
    address = settings.prometheus_host, settings.prometheus_port
    tls = settings.prometheus_tls
    shown = _Shown(tls, telemetry) if tls.is_on else None
    with _Server(address, shown) as server:
        server.set_app(make_wsgi_app(registry))
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Shown(Renewed):
    """What is shown to those who scrape, and who must have certified them."""

    context: ssl.SSLContext

    def __init__(self, tls: ScrapeTls, telemetry: Telemetry) -> None:
        self._tls = tls
        super().__init__(
            (tls.certificate, tls.key, tls.ca),
            self._taken,
            is_plaintext=False,
            shown_to="monitoring",
            telemetry=telemetry,
        )

    def _taken(self) -> Certificates:
        tls = self._tls
        pair = ListenerSettings(certificate=tls.certificate, key=tls.key)
        certificates = Certificates.read(pair)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=tls.ca)
        context.load_cert_chain(str(tls.certificate), tls.key)
        self.context = context
        return certificates


class _Silent(WSGIRequestHandler):
    """Writes no line for each request, and waits for none for ever."""

    timeout = _SECONDS

    def log_message(self, *_arguments: Any) -> None: ...


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a connection."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], shown: _Shown | None) -> None:
        self._shown = shown
        [found, *_] = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        self.address_family = found[0]
        super().__init__(address, _Silent)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in its thread."""
        if self._shown is None:
            super().finish_request(request, client_address)
            return
        self._shown.renew()
        request.settimeout(_SECONDS)
        try:
            secured = self._shown.context.wrap_socket(request, server_side=True)
        except OSError:  # nobody whom we know
            return
        with secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of those who have gone away meanwhile."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("metrics could not be shown", exc_info=error)
