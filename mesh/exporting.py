"""Telemetry that is on: OpenTelemetry, sent by OTLP, read by Prometheus, or both."""

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes
from prometheus_client import CollectorRegistry

from mesh.errors import WhimbrelError, root_cause
from mesh.interceptors import Behaviour, Continuation, Handler, wrapped
from mesh.metrics import CALLS, Metric
from mesh.scraping import scraped
from mesh.telemetry import Counter, Histogram, Labels, Span, TelemetrySettings

_LAST_WORDS_MS = 3000
_PARENT = "traceparent"
# Bounds of histograms: a commit takes 0.3 ms, a stream lasts for hours.
_SECONDS = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 3600.0, 86400.0]
_ITEMS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]
_SCOPE = "whimbrel"
_TRACE_BYTES = 24
_propagator = TraceContextTextMapPropagator()
# What the client of the stream that is served wants its sends linked to.
_client: contextvars.ContextVar[trace.SpanContext | None] = contextvars.ContextVar(
    "client", default=None
)


@contextlib.contextmanager
def exporting(settings: TelemetrySettings, resource: Mapping[str, str]) -> Iterator["OnTelemetry"]:
    """Export until the block is left."""
    about = Resource.create(dict(resource))
    registry = CollectorRegistry()  # not the global one: two in a process must not meet
    with contextlib.ExitStack() as stack:
        meters = MeterProvider(_readers(settings, registry), about, shutdown_on_exit=False)
        stack.callback(meters.shutdown, timeout_millis=_LAST_WORDS_MS)
        tracers = TracerProvider(_AtTheEdge(settings.sampled), about, shutdown_on_exit=False)
        stack.callback(tracers.shutdown)
        if settings.otlp_endpoint:
            exporter = OTLPSpanExporter(settings.otlp_endpoint, timeout=_LAST_WORDS_MS / 1000)
            tracers.add_span_processor(BatchSpanProcessor(exporter))
        telemetry = OnTelemetry(tracers, meters, client_traces=settings.client_traces)
        if settings.prometheus_port:
            stack.enter_context(scraped(settings, registry, telemetry))
        yield telemetry


def _readers(settings: TelemetrySettings, registry: CollectorRegistry) -> list[MetricReader]:
    readers: list[MetricReader] = []
    if settings.otlp_endpoint:
        exporter = OTLPMetricExporter(settings.otlp_endpoint, timeout=_LAST_WORDS_MS / 1000)
        readers.append(PeriodicExportingMetricReader(exporter))
    if settings.prometheus_port:
        readers.append(PrometheusMetricReader(registry=registry))
    return readers


class OnTelemetry:
    """Traces and metrics that somebody listens to."""

    is_on = True

    def __init__(
        self, tracers: TracerProvider, meters: MeterProvider, *, client_traces: bool = False
    ) -> None:
        self._gauges: dict[str, list[tuple[Callable[[], float], Labels | None]]] = {}
        self._tracer = tracers.get_tracer(_SCOPE)
        self._meter = meters.get_meter(_SCOPE)
        durations = self.histogram(CALLS)
        self.interceptors: Sequence[grpc.aio.ServerInterceptor] = (
            _CallInterceptor(self._tracer, durations),
        )
        self.edge_interceptors: Sequence[grpc.aio.ServerInterceptor] = (
            _CallInterceptor(self._tracer, durations, of_clients=True, heeds=client_traces),
        )

    def counter(self, metric: Metric) -> Counter:
        return self._meter.create_counter(metric.name, metric.unit, metric.meaning)

    def histogram(self, metric: Metric) -> Histogram:
        return self._meter.create_histogram(
            metric.name,
            metric.unit,
            metric.meaning,
            explicit_bucket_boundaries_advisory=_SECONDS if metric.unit == "s" else _ITEMS,
        )

    def gauge(
        self, metric: Metric, read: Callable[[], float], labels: Labels | None = None
    ) -> None:
        readers = self._gauges.setdefault(metric.name, [])
        readers.append((read, labels))
        if len(readers) > 1:
            return

        def observe(_options: CallbackOptions) -> list[Observation]:
            return [Observation(read(), labels) for read, labels in readers]

        self._meter.create_observable_gauge(metric.name, [observe], metric.unit, metric.meaning)

    def span(self, name: str, *, parent: str = "") -> AbstractContextManager[Span]:
        return self._span(name, parent)

    def start(
        self, name: str, parent: bytes = b"", *, links: Sequence[bytes] = ()
    ) -> "_StartedSpan | None":
        if parent and len(parent) != _TRACE_BYTES:
            return None  # of another version: a trace may end, a message may not
        linked = [trace.Link(_of_bytes(link)) for link in links if len(link) == _TRACE_BYTES]
        context = otel_context.Context()  # empty, whatever call this may be in
        if parent:
            under = trace.NonRecordingSpan(_of_bytes(parent))
            context = trace.set_span_in_context(under, context)
        elif not links and (caller := _client.get()) is not None:
            linked.append(trace.Link(caller))
        span = self._tracer.start_span(name, context, links=linked)
        return _StartedSpan(span) if span.is_recording() else None

    def start_in_call(self, name: str) -> "_StartedSpan | None":
        if not trace.get_current_span().is_recording():
            return None
        return _StartedSpan(self._tracer.start_span(name))

    def trace_context(self) -> str:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return carrier.get(_PARENT, "")

    @contextlib.contextmanager
    def _span(self, name: str, parent: str) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            _context_of(parent),
            record_exception=False,  # an error's text may quote what a trace must not hold
            set_status_on_exception=False,
        ) as span:
            yield _OnSpan(span)


class _OnSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name, value)


class _StartedSpan:
    __slots__ = ("_span", "trace")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace = context.trace_id.to_bytes(16, "big") + context.span_id.to_bytes(8, "big")

    def set(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name, value)

    def end(self) -> None:
        self._span.end()


class _AtTheEdge(Sampler):
    """A trace is decided upon where it begins; what links to kept traces is kept with them."""

    def __init__(self, share: float) -> None:
        self._begun = ParentBased(TraceIdRatioBased(share))

    def should_sample(  # noqa: PLR0917  the library's signature
        self,
        parent_context: otel_context.Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        sampler = ALWAYS_ON if links else self._begun
        return sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return "AtTheEdge"


def _of_bytes(at: bytes) -> trace.SpanContext:
    return trace.SpanContext(
        int.from_bytes(at[:16], "big"),
        int.from_bytes(at[16:], "big"),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )


class _CallInterceptor(grpc.aio.ServerInterceptor):
    """A span and a duration per call; for a stream, over its whole life."""

    def __init__(
        self,
        tracer: trace.Tracer,
        durations: Histogram,
        *,
        of_clients: bool = False,
        heeds: bool = True,
    ) -> None:
        self._tracer = tracer
        self._of_clients = of_clients
        self._heeds = heeds
        self._durations = durations

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        told_of = handler_call_details.invocation_metadata or () if self._heeds else ()
        parent = dict(told_of).get(_PARENT, "")
        told = functools.partial(self._told, handler_call_details.method, str(parent))
        return wrapped(handler, told)

    def _told(self, method: str, parent: str, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        async def told(request: Any, context: Any) -> Any:
            started, code = time.perf_counter(), grpc.StatusCode.OK.name
            if parent and self._of_clients:
                said = trace.get_current_span(_context_of(parent)).get_span_context()
                _client.set(said if said.is_valid and said.trace_flags.sampled else None)
            with self._tracer.start_as_current_span(
                method.lstrip("/"),
                _context_of(parent),
                trace.SpanKind.SERVER,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    return await behaviour(request, context)
                except BaseException as error:
                    code = _code_of(error, context)
                    raise
                finally:
                    span.set_attribute("rpc.grpc.status_code", code)
                    labels = {"method": method, "code": code}
                    self._durations.record(time.perf_counter() - started, labels)

        return told


def _context_of(parent: str) -> otel_context.Context | None:
    return _propagator.extract({_PARENT: parent}) if parent else None


def _code_of(error: BaseException, context: Any) -> str:
    cause = root_cause(error)
    if isinstance(cause, WhimbrelError):
        return cause.code.name
    if isinstance(cause, grpc.aio.AbortError):
        return grpc.StatusCode(context.code()).name
    is_error = isinstance(cause, Exception)
    return (grpc.StatusCode.INTERNAL if is_error else grpc.StatusCode.CANCELLED).name
