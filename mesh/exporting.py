"""Telemetry that is on: OpenTelemetry, sent by OTLP, read by Prometheus, or both."""

import contextlib
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
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, start_http_server

from mesh.errors import WhimbrelError, root_cause
from mesh.interceptors import Behaviour, Continuation, Handler, wrapped
from mesh.metrics import CALLS, Metric
from mesh.telemetry import Counter, Histogram, Labels, Span, TelemetrySettings

_LAST_WORDS_MS = 3000
_PARENT = "traceparent"
# Bounds of histograms: a commit takes 0.3 ms, a stream lasts for hours.
_SECONDS = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 3600.0, 86400.0]
_ITEMS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]
_SCOPE = "whimbrel"
_propagator = TraceContextTextMapPropagator()


@contextlib.contextmanager
def exporting(settings: TelemetrySettings, resource: Mapping[str, str]) -> Iterator["OnTelemetry"]:
    """Export until the block is left."""
    about = Resource.create(dict(resource))
    with contextlib.ExitStack() as stack:
        meters = MeterProvider(_readers(settings, stack), about, shutdown_on_exit=False)
        stack.callback(meters.shutdown, timeout_millis=_LAST_WORDS_MS)
        tracers = TracerProvider(
            ParentBased(TraceIdRatioBased(settings.sampled)), about, shutdown_on_exit=False
        )
        stack.callback(tracers.shutdown)
        if settings.otlp_endpoint:
            exporter = OTLPSpanExporter(settings.otlp_endpoint, timeout=_LAST_WORDS_MS / 1000)
            tracers.add_span_processor(BatchSpanProcessor(exporter))
        yield OnTelemetry(tracers, meters)


def _readers(settings: TelemetrySettings, stack: contextlib.ExitStack) -> list[MetricReader]:
    readers: list[MetricReader] = []
    if settings.otlp_endpoint:
        exporter = OTLPMetricExporter(settings.otlp_endpoint, timeout=_LAST_WORDS_MS / 1000)
        readers.append(PeriodicExportingMetricReader(exporter))
    if settings.prometheus_port:
        registry = CollectorRegistry()  # not the global one: two in a process must not meet
        readers.append(PrometheusMetricReader(registry=registry))
        server, thread = start_http_server(
            settings.prometheus_port, settings.prometheus_host, registry
        )
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
    return readers


class OnTelemetry:
    """Traces and metrics that somebody listens to."""

    is_on = True

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._gauges: dict[str, list[tuple[Callable[[], float], Labels | None]]] = {}
        self._tracer = tracers.get_tracer(_SCOPE)
        self._meter = meters.get_meter(_SCOPE)
        self.interceptors: Sequence[grpc.aio.ServerInterceptor] = (
            _CallInterceptor(self._tracer, self.histogram(CALLS)),
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


class _CallInterceptor(grpc.aio.ServerInterceptor):
    """A span and a duration per call; for a stream, over its whole life."""

    def __init__(self, tracer: trace.Tracer, durations: Histogram) -> None:
        self._tracer = tracer
        self._durations = durations

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        parent = dict(handler_call_details.invocation_metadata or ()).get(_PARENT, "")
        told = functools.partial(self._told, handler_call_details.method, str(parent))
        return wrapped(handler, told)

    def _told(self, method: str, parent: str, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        async def told(request: Any, context: Any) -> Any:
            started, code = time.perf_counter(), grpc.StatusCode.OK.name
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
