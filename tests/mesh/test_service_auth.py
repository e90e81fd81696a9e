from datetime import UTC, datetime, timedelta

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.access import AccessInterceptor
from mesh.auth import ServiceTokenVerifier, TokenSigner
from mesh.errors import reason_of
from mesh.health import Health
from mesh.keys import KeySet
from mesh.server import INTERNAL_LISTENER, bind, new_server, running
from mesh.service_auth import ServiceCredentials, ServiceTokenInterceptor, caller
from mesh.testing import ManualClock

SHAPES = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]
KEYS = KeySet.generate()


def credentials(service="svc_gateway", **options):
    signer = TokenSigner(KEYS.private_key, KEYS.key_id, clock=options.get("clock"))
    return ServiceCredentials(signer, service=service, instance_id="i1", **options)


def interceptor():
    return ServiceTokenInterceptor(ServiceTokenVerifier(KEYS.public_keys, "svc_message"))


async def tell_caller(_request, context):
    answer = f"{caller().service} {caller().instance_id}".encode()
    await context.write(answer)


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_call_without_a_token_is_refused_whatever_its_shape(serve, call, shape):
    channel = await serve(tell_caller, interceptors=[interceptor()])

    error = await call(channel, shape)

    assert reason_of(error)[0] == "TOKEN_MISSING"


async def test_a_call_with_a_token_is_let_in_and_its_caller_is_known(serve, call):
    channel = await serve(tell_caller, interceptors=[interceptor()])

    answer = await call(channel, "StreamStream", metadata=credentials().metadata_for("svc_message"))

    assert answer == b"svc_gateway i1"


async def test_a_token_for_another_service_is_refused(serve, call):
    channel = await serve(tell_caller, interceptors=[interceptor()])

    error = await call(channel, "UnaryUnary", metadata=credentials().metadata_for("svc_media"))

    assert reason_of(error)[0] == "TOKEN_INVALID"


async def test_a_method_without_a_proto_that_names_its_callers_is_refused_to_everybody(serve, call):
    channel = await serve(tell_caller, interceptors=[interceptor(), AccessInterceptor()])

    for shape in SHAPES:
        metadata = credentials("gateway").metadata_for("svc_message")
        error = await call(channel, shape, metadata=metadata)

        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert reason_of(error)[0] == "CALLER_NOT_ALLOWED"


async def test_health_is_open_to_probes():
    server = new_server(INTERNAL_LISTENER, interceptors=[interceptor(), AccessInterceptor()])
    Health().add_to(server)
    address = bind(server, "127.0.0.1:0")

    async with running(server, timedelta()), grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())

    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_token_is_kept_for_half_of_its_life_and_then_renewed():
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    calls = credentials(clock=clock, lifetime=timedelta(minutes=5))

    first = calls.metadata_for("svc_message")
    await clock.advance(149)
    assert calls.metadata_for("svc_message") == first
    assert calls.metadata_for("svc_media") != first
    await clock.advance(2)

    assert calls.metadata_for("svc_message") != first


def test_extra_metadata_comes_along():
    metadata = credentials().metadata_for("svc_message", {"whimbrel-user": "u"})

    assert metadata[1:] == (("whimbrel-user", "u"),)
