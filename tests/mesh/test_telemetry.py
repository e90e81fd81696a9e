import asyncio
import re
import socket
import ssl
import subprocess
import sys
import timeit
import urllib.request
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from mesh import metrics
from mesh.authority import Authority
from mesh.errors import PermissionDenied
from mesh.telemetry import OFF, ScrapeTls, TelemetrySettings, open_telemetry


def telemetry(**settings):
    return open_telemetry(TelemetrySettings(**settings), service="svc_x", instance_id="i1")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def scraped(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return answer.read().decode()


class Collector(
    trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
):
    """Takes what is exported."""

    def __init__(self):
        self.spans = []
        self.metrics = []

    def Export(self, request, _context):
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            return trace_service_pb2.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics += [metric.name for metric in scope.metrics]
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
def collector():
    server, collector = grpc.server(futures.ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield collector
    server.stop(None).wait()


def test_off_is_the_default_and_nothing_is_made():
    with telemetry() as off:
        assert off is OFF
        assert off.span("a") is off.span("b")
        assert off.counter(metrics.ACCEPTED) is off.histogram(metrics.BATCHES)
        assert list(off.interceptors) == []
        assert off.trace_context() == ""


def test_off_imports_no_exporter():
    program = (
        "import sys; from mesh.telemetry import *\n"
        "with open_telemetry(TelemetrySettings(), service='s', instance_id='i'): pass\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_off_costs_under_two_percent_of_a_message():
    # A message may cost 240 us over all processes; it touches fewer than ten instruments.
    counter, histogram = OFF.counter(metrics.ACCEPTED), OFF.histogram(metrics.BATCHES)

    def touch():
        for _ in range(5):
            counter.add(1)
        for _ in range(4):
            histogram.record(0.1)
        with OFF.span("batch") as span:
            span.set("items", 7)

    seconds = min(timeit.repeat(touch, number=1000, repeat=20)) / 1000

    assert seconds < 0.02 * 240e-6


def test_prometheus_finds_what_was_counted():
    port = free_port()
    with telemetry(prometheus_port=port) as on:
        on.counter(metrics.ACCEPTED).add(3)
        on.counter(metrics.REFUSED).add(1, {"reason": "BODY_EMPTY"})
        on.histogram(metrics.BATCHES).record(0.002, {"kind": "accept"})
        on.gauge(metrics.SESSIONS, lambda: 42)

        page = scraped(port)

    assert "whimbrel_accepted_total{" in page
    assert 'reason="BODY_EMPTY"' in page
    assert 'whimbrel_batch_duration_seconds_bucket{kind="accept",le="0.003"' in page
    assert "whimbrel_sessions{" in page
    assert "} 42.0" in page
    with pytest.raises(OSError):
        scraped(port)


@pytest.fixture
def monitoring(tmp_path):
    """The authority of who shows metrics and who scrapes; both have certificates."""
    authority = Authority.at(tmp_path / "monitoring")
    for name in ("metrics", "prometheus"):
        authority.issue(name)
    return authority


def scrape_tls(authority):
    folder = authority.ca.parent
    return ScrapeTls(
        certificate=folder / "metrics.pem", key=folder / "metrics-key.pem", ca=authority.ca
    )


def scraped_by(port, authority, certified_by=None):
    """The page, by a client that trusts the authority; its own certificate is by another."""
    context = ssl.create_default_context(cafile=authority.ca)
    context.check_hostname = False
    if certified_by is not None:
        folder = certified_by.ca.parent
        context.load_cert_chain(folder / "prometheus.pem", folder / "prometheus-key.pem")
    with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", context=context) as answer:
        return answer.read().decode()


def shown_at(port):
    """The certificate that the port shows."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)


def test_with_certificates_the_metrics_are_for_those_alone_whom_the_authority_certifies(
    monitoring, tmp_path
):
    port, other = free_port(), Authority.at(tmp_path / "other")
    other.issue("prometheus")
    with telemetry(prometheus_port=port, prometheus_tls=scrape_tls(monitoring)) as on:
        on.counter(metrics.ACCEPTED).add(3)

        assert "whimbrel_accepted_total{" in scraped_by(port, monitoring, monitoring)
        for stranger in (None, other):
            with pytest.raises(OSError):
                scraped_by(port, monitoring, stranger)
        with pytest.raises(OSError):  # whoever trusts another authority
            scraped_by(port, other, monitoring)
        with pytest.raises(OSError):
            scraped(port)


def test_certificates_of_the_metrics_are_renewed_and_bad_ones_left_alone_and_counted(monitoring):
    port, tls = free_port(), scrape_tls(monitoring)
    with telemetry(prometheus_port=port, prometheus_tls=tls):
        first = tls.certificate.read_text()
        assert shown_at(port) == first
        monitoring.issue("metrics")
        assert shown_at(port) == tls.certificate.read_text() != first

        kept = tls.certificate.read_text()
        tls.certificate.write_text("none")
        assert shown_at(port) == kept
        page = scraped_by(port, monitoring, monitoring)

    assert "whimbrel_certificates_refused_total{" in page
    assert re.search(r'whimbrel_certificate_expiry_seconds\{.*shown_to="monitoring"', page)


@pytest.mark.parametrize("has_tls", [False, True])
def test_who_connects_to_the_metrics_and_says_nothing_keeps_nobody_waiting(monitoring, has_tls):
    port = free_port()
    settings = {"prometheus_tls": scrape_tls(monitoring)} if has_tls else {}
    with (
        telemetry(prometheus_port=port, **settings) as on,
        socket.create_connection(("127.0.0.1", port)) as silent,
    ):
        on.counter(metrics.ACCEPTED).add(3)
        page = scraped_by(port, monitoring, monitoring) if has_tls else scraped(port)
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):  # it has not been sent away first
            silent.recv(1)

    assert "whimbrel_accepted_total{" in page


@pytest.mark.parametrize("shape", ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"])
async def test_each_call_is_timed_with_its_code(serve, call, shape):
    async def refuse(_request, _context):
        raise PermissionDenied("no")

    port = free_port()
    with telemetry(prometheus_port=port) as on:
        channel = await serve(refuse, interceptors=on.interceptors)
        await call(channel, shape)

        page = await asyncio.to_thread(scraped, port)

    assert f'code="PERMISSION_DENIED",le="+Inf",method="/test.Test/{shape}"' in page


async def test_a_call_and_the_batch_after_its_queue_hop_are_one_trace(collector, serve, call):
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    hops = []

    with telemetry(otlp_endpoint=collector.endpoint) as on:

        async def behaviour(request, _context):
            hops.append(on.trace_context())
            return request

        channel = await serve(behaviour, interceptors=on.interceptors)
        await call(
            channel, "UnaryUnary", metadata=(("traceparent", f"00-{trace_id}-{parent_id}-01"),)
        )
        with on.span("relay", parent=hops[0]) as span:
            span.set("entries", 3)
        on.counter(metrics.COPIES).add(1)

    served, relayed = collector.spans
    assert (served.name, relayed.name) == ("test.Test/UnaryUnary", "relay")
    assert [span.trace_id.hex() for span in collector.spans] == [trace_id] * 2
    assert served.parent_span_id.hex() == parent_id
    assert relayed.parent_span_id == served.span_id
    assert metrics.COPIES.name in collector.metrics


async def test_what_an_error_says_is_not_in_the_trace(collector, serve, call):
    async def fail(_request, _context):
        raise ValueError("what they wrote")

    with telemetry(otlp_endpoint=collector.endpoint, sampled=1.0) as on:
        channel = await serve(fail, interceptors=on.interceptors)
        await call(channel, "UnaryUnary")
        with pytest.raises(ValueError, match="wrote"), on.span("batch"):
            raise ValueError("what they wrote")

    assert len(collector.spans) == 2
    assert "wrote" not in str(collector.spans)


def test_leaving_does_not_wait_long_for_a_collector_that_is_away():
    started = timeit.default_timer()
    with telemetry(otlp_endpoint="http://127.0.0.1:1", sampled=1.0) as on:
        on.counter(metrics.ACCEPTED).add(1)
        with on.span("batch"):
            pass

    assert timeit.default_timer() - started < 10


def test_metric_names_are_unique():
    names = [value.name for value in vars(metrics).values() if isinstance(value, metrics.Metric)]

    assert len(set(names)) == len(names) > 0


def test_off_begins_no_trace():
    assert OFF.start("send") is None
    assert OFF.start("accept", b"p" * 24) is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_trace_is_decided_where_it_begins_and_by_nobody_after(collector, share):
    with telemetry(otlp_endpoint=collector.endpoint, sampled=share) as on:
        begun = on.start("send")
        # What comes under a trace that was kept elsewhere, or links to one, is kept with it.
        under = on.start("accept", b"t" * 16 + b"s" * 8)
        linked = on.start("batch", links=[under.trace])
        for span in filter(None, (begun, under, linked)):
            span.end()

    assert (begun is not None) == bool(share)
    assert under.trace[:16] == b"t" * 16
    assert linked.trace[:16] != b"t" * 16
    spans = {span.name: span for span in collector.spans}
    assert spans.keys() == {"accept", "batch"} | ({"send"} if share else set())
    assert spans["accept"].parent_span_id == b"s" * 8
    assert [link.trace_id for link in spans["batch"].links] == [b"t" * 16]


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_clients_traceparent_has_its_sends_kept_only_where_that_is_allowed(
    collector, serve, call, allowed
):
    kept = []
    settings = {"sampled": 0.0, "client_traces": allowed}
    with telemetry(otlp_endpoint=collector.endpoint, **settings) as on:

        async def behaviour(request, _context):
            span = on.start("send")
            kept.append(span is not None)
            if span is not None:
                span.end()
            return request

        channel = await serve(behaviour, interceptors=on.edge_interceptors)
        await call(
            channel, "UnaryUnary", metadata=(("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01"),)
        )
        await call(channel, "UnaryUnary")

    assert kept == [allowed, False]
    sends = [span for span in collector.spans if span.name == "send"]
    assert [link.trace_id.hex() for span in sends for link in span.links] == ["ab" * 16] * allowed
    assert all(span.trace_id.hex() != "ab" * 16 for span in sends)


def test_a_place_in_a_trace_that_nobody_understands_ends_the_trace_and_nothing_else(collector):
    with telemetry(otlp_endpoint=collector.endpoint, sampled=1.0) as on:
        assert on.start("accept", b"short") is None
        on.start("batch", links=[b"short"]).end()

    assert [list(span.links) for span in collector.spans] == [[]]
