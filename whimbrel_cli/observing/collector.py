"""Takes traces and metrics by OTLP over gRPC and writes each as a line of JSON."""

import asyncio
import json
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from whimbrel_cli.observing.spans import Link, Said, traces_file

_MOST_BYTES = 64 * 1024 * 1024


def metrics_file(folder: Path) -> Path:
    """Where metrics are written: a line each time one is told."""
    return folder / "metrics.jsonl"


class Collector(
    trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
):
    """Writes down what it is told; a file that is full begins anew, the last one beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._traces = _Lines(traces_file(folder))
        self._metrics = _Lines(metrics_file(folder))

    async def Export(self, request: Any, _context: Any) -> Any:  # noqa: N802  gRPC's name
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            self._traces.write(_spans(request))
            return trace_service_pb2.ExportTraceServiceResponse()
        self._metrics.write(_metrics(request))
        return metrics_service_pb2.ExportMetricsServiceResponse()


class _Lines:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._opened()

    def write(self, lines: Iterable[dict[str, Any]]) -> None:
        for line in lines:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()
        if self._file.tell() > _MOST_BYTES:
            self._file.close()
            self._path.replace(self._path.with_suffix(".old.jsonl"))
            self._file = self._opened()

    def _opened(self) -> TextIO:
        return self._path.open("a")


def _spans(request: trace_service_pb2.ExportTraceServiceRequest) -> Iterator[dict[str, Any]]:
    for of_resource in request.resource_spans:
        about = _attributes(of_resource.resource.attributes)
        for scope in of_resource.scope_spans:
            for span in scope.spans:
                yield Said(
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    name=span.name,
                    service=str(about.get("service.name", "")),
                    instance=str(about.get("service.instance.id", "")),
                    began=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    links=[Link(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                ).as_json()


def _metrics(request: metrics_service_pb2.ExportMetricsServiceRequest) -> Iterator[dict[str, Any]]:
    for of_resource in request.resource_metrics:
        about = _attributes(of_resource.resource.attributes)
        for scope in of_resource.scope_metrics:
            for metric in scope.metrics:
                yield {**about, **MessageToDict(metric)}


def _attributes(pairs: Iterable[Any]) -> dict[str, str | int]:
    return {
        pair.key: pair.value.int_value
        if pair.value.HasField("int_value")
        else pair.value.string_value
        for pair in pairs
    }


async def serve(folder: Path, address: str) -> None:
    """Take what comes until told to stop."""
    server, collector, stop = grpc.aio.server(), Collector(folder), asyncio.Event()
    adders: tuple[Any, ...] = (
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
    )
    for add in adders:
        add(collector, server)
    server.add_insecure_port(address)
    for ending in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    await server.start()
    await stop.wait()
    await server.stop(1)
