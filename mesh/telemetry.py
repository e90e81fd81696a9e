"""Traces and metrics: what code calls, and the nothing behind it when telemetry is off.

Off is the default and costs a call of an empty method: no exporter is imported, no interceptor is
installed, nothing is allocated.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import grpc
from pydantic import FilePath

from mesh.metrics import Metric
from mesh.settings import Section

Labels = Mapping[str, str]


class ScrapeTls(Section):
    """Who this instance is to Prometheus, and who may scrape. All three files, PEM, or none."""

    certificate: FilePath | None = None
    """The certificate that it shows, and what is between it and the authority."""
    key: FilePath | None = None
    """The certificate's private key."""
    ca: FilePath | None = None
    """Authorities that certify who may scrape, whatever their names; best one of monitoring's own:
    to the mesh's a name is a team."""

    @property
    def is_on(self) -> bool:
        """Whether there is any."""
        return bool(self.certificate or self.key or self.ca)

    def missing(self) -> list[str]:
        """What it lacks, by name."""
        files = {"certificate": self.certificate, "key": self.key, "ca": self.ca}
        return [name for name, path in files.items() if self.is_on and path is None]


class TelemetrySettings(Section):
    """Where traces and metrics go; nowhere by default."""

    otlp_endpoint: str = ""
    """Where traces and metrics are sent by OTLP over gRPC, such as http://collector:4317."""
    prometheus_port: int = 0
    """Port on which Prometheus finds the metrics; 0 is none."""
    prometheus_host: str = "127.0.0.1"
    """Address of that port."""
    prometheus_tls: ScrapeTls = ScrapeTls()
    """TLS on that port, both ways; none: plaintext, for whoever can reach it."""
    client_traces: bool = False
    """Whether a client's traceparent has its sends kept; else gateways decide alone."""
    sampled: float = 0.01
    """Share of traces begun here that are kept; a caller's decision goes before it."""

    @property
    def is_on(self) -> bool:
        """Whether anybody listens."""
        return bool(self.otlp_endpoint or self.prometheus_port)


class Counter(Protocol):
    """Counts up."""

    def add(self, amount: int, labels: Labels | None = None, /) -> None: ...


class Histogram(Protocol):
    """Keeps the distribution of what it is told."""

    def record(self, value: float, labels: Labels | None = None, /) -> None: ...


class Span(Protocol):
    """A stretch of work that a trace shows."""

    def set(self, name: str, value: str | int) -> None:
        """Add a fact: an id or a count, never a content."""


class OpenSpan(Protocol):
    """A span that ends when it is told to."""

    @property
    def trace(self) -> bytes:
        """Where the trace stands: its id and this span's, for whoever goes on; 24 bytes."""

    def set(self, name: str, value: str | int) -> None:
        """Add a fact: an id or a count, never a content or a person."""

    def end(self) -> None: ...


class Telemetry(Protocol):
    """What the rest of the code sees."""

    @property
    def is_on(self) -> bool:
        """Whether anybody listens; what is dear to measure is measured only then."""

    @property
    def interceptors(self) -> Sequence[grpc.aio.ServerInterceptor]:
        """What a server needs to tell of its calls."""

    @property
    def edge_interceptors(self) -> Sequence[grpc.aio.ServerInterceptor]:
        """The same for a listener of clients."""

    def counter(self, metric: Metric) -> Counter: ...

    def histogram(self, metric: Metric) -> Histogram: ...

    def gauge(
        self, metric: Metric, read: Callable[[], float], labels: Labels | None = None
    ) -> None:
        """Ask `read` whenever the metric is collected, from any thread; once for each labels."""

    def span(self, name: str, *, parent: str = "") -> AbstractContextManager[Span]:
        """A span around the block, under the current one or under the `parent` of a queue hop."""

    def start(
        self, name: str, parent: bytes = b"", *, links: Sequence[bytes] = ()
    ) -> OpenSpan | None:
        """A span of a message's trace; None if the message is not sampled.

        Under `parent`, or the first of a trace: that is where it is decided, unless it links to
        messages that are sampled, when it is kept as they are.
        """

    def start_in_call(self, name: str) -> OpenSpan | None:
        """A span of a message's trace, under the call that is served; None if that is not kept.

        So the caller decides, by its traceparent; the share of `sampled`, if it has none.
        """

    def trace_context(self) -> str:
        """The current span as W3C traceparent, for a queue hop; empty when there is none."""


class _Nothing:
    """Every instrument and span of telemetry that is off."""

    __slots__ = ()

    def add(self, amount: int, labels: Labels | None = None, /) -> None: ...

    def record(self, value: float, labels: Labels | None = None, /) -> None: ...

    def set(self, name: str, value: str | int) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


_NOTHING = _Nothing()


class _Off:
    """Telemetry that nobody listens to."""

    is_on = False
    interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    edge_interceptors: Sequence[grpc.aio.ServerInterceptor] = ()

    def start(
        self, name: str, parent: bytes = b"", *, links: Sequence[bytes] = ()
    ) -> OpenSpan | None:
        return None

    def start_in_call(self, name: str) -> OpenSpan | None:
        return None

    def counter(self, metric: Metric) -> Counter:
        return _NOTHING

    def histogram(self, metric: Metric) -> Histogram:
        return _NOTHING

    def gauge(
        self, metric: Metric, read: Callable[[], float], labels: Labels | None = None
    ) -> None: ...

    def span(self, name: str, *, parent: str = "") -> AbstractContextManager[Span]:
        return _NOTHING

    def trace_context(self) -> str:
        return ""


OFF: Telemetry = _Off()


@contextlib.contextmanager
def open_telemetry(
    settings: TelemetrySettings, *, service: str, instance_id: str, version: str = ""
) -> Iterator[Telemetry]:
    """Telemetry as set; what is not sent yet goes out on leaving, within a few seconds."""
    if not settings.is_on:
        yield OFF
        return
    # Twenty megabytes that a process without telemetry does not carry.
    from mesh.exporting import exporting  # noqa: PLC0415

    resource = {"service.name": service, "service.instance.id": instance_id}
    if version:
        resource["service.version"] = version
    with exporting(settings, resource) as telemetry:
        yield telemetry
