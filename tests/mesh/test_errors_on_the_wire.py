import asyncio
from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs

from mesh.errors import (
    Failure,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
    WhimbrelError,
    failure_of,
    leaves,
    reason_of,
    root_cause,
)

SHAPES = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]


class Full(WhimbrelError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"


async def raise_full(_request, _context):
    raise Full("the queue is full", metadata={"shard": "a"}, retry_after=timedelta(seconds=1.5))


async def raise_bug(_request, _context):
    raise ZeroDivisionError("what only the log may know")


async def fail_in_group(error):
    async def fail():
        raise error

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())
        await asyncio.Event().wait()


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_expected_error_arrives_with_its_reason_whatever_the_shape(serve, call, shape):
    channel = await serve(raise_full)

    error = await call(channel, shape)

    assert error.details() == "the queue is full"
    assert failure_of(error) == Failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        {"shard": "a"},
        timedelta(seconds=1.5),
    )


async def test_a_status_carries_exactly_one_error_info(serve, call):
    channel = await serve(raise_full)

    status = rpc_status.from_call(await call(channel, "UnaryUnary"))

    assert [detail.TypeName() for detail in status.details] == [
        "google.rpc.ErrorInfo",
        "google.rpc.RetryInfo",
    ]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "whimbrel"


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_bug_is_logged_once_and_told_to_nobody(serve, call, shape):
    channel = await serve(raise_bug)

    with capture_logs() as logged:
        error = await call(channel, shape)

    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert reason_of(error)[0] == "INTERNAL"
    assert [line["method"] for line in logged] == [f"/test.Test/{shape}"]
    assert "only the log" in str(logged[0]["exc_info"])


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_inside_a_task_group_keeps_its_reason(serve, call, shape):
    async def behaviour(_request, _context):
        await fail_in_group(PermissionDenied("not yours"))

    channel = await serve(behaviour)

    with capture_logs() as logged:
        error = await call(channel, shape)

    assert reason_of(error)[0] == "CALLER_NOT_ALLOWED"
    assert logged == []


async def test_a_bug_beside_an_expected_error_is_logged_and_the_expected_one_told(serve, call):
    async def behaviour(_request, _context):
        raise ExceptionGroup("both", [ValueError("a bug"), PermissionDenied("not yours")])

    channel = await serve(behaviour)

    with capture_logs() as logged:
        error = await call(channel, "UnaryUnary")

    assert reason_of(error)[0] == "CALLER_NOT_ALLOWED"
    assert len(logged) == 1


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_status_that_is_not_in_the_table_is_told_as_a_bug(serve, call, shape):
    class Lost(WhimbrelError):
        code = grpc.StatusCode.DATA_LOSS
        reason = "RATE_LIMITED"

    async def behaviour(_request, _context):
        raise Lost("what was told")

    channel = await serve(behaviour)

    with capture_logs() as logged:
        error = await call(channel, shape)

    assert (error.code(), reason_of(error)[0]) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert error.details() == "internal error"
    assert [(line["log_level"], line["reason"]) for line in logged] == [("error", "RATE_LIMITED")]


async def test_a_field_that_is_refused_is_told_as_a_bad_request_too(serve, call):
    async def behaviour(_request, _context):
        raise InvalidArgument("no", metadata={"field": "name", "allowed": "3 bytes"})

    status = rpc_status.from_call(await call(await serve(behaviour), "UnaryUnary"))

    told = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(told)
    [violation] = told.field_violations
    assert (violation.field, violation.description) == ("name", "3 bytes")
    assert violation.reason == "FIELD_INVALID"


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_status_that_a_handler_chose_passes_also_out_of_a_task_group(serve, call, shape):
    async def behaviour(_request, context):
        async def choose():
            await context.abort(grpc.StatusCode.DATA_LOSS, "chosen")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(choose())
            await asyncio.Event().wait()

    channel = await serve(behaviour)

    with capture_logs() as logged:
        error = await call(channel, shape)

    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "chosen")
    assert logged == []


async def test_a_call_that_its_caller_gives_up_ends_its_handler_without_a_log_line(serve):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def behaviour(_request, _context):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    channel = await serve(behaviour)

    with capture_logs() as logged:
        stream = channel.stream_stream("/test.Test/StreamStream")()
        await begun.wait()
        stream.cancel()
        await ended.wait()

    assert logged == []


async def test_a_method_that_is_not_there_is_unimplemented(serve):
    channel = await serve(raise_bug)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/test.Test/Nothing")(b"")

    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_failure_that_is_not_ours_has_no_reason():
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "connection refused"
    )

    assert failure_of(error) == Failure(grpc.StatusCode.UNAVAILABLE)


async def test_details_that_contradict_their_status_are_not_believed(serve, call):
    channel = await serve(raise_full)
    real = await call(channel, "UnaryUnary")

    error = grpc.aio.AioRpcError(
        grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), real.trailing_metadata(), real.details()
    )

    assert failure_of(error) == Failure(grpc.StatusCode.NOT_FOUND)


def test_a_retriable_error_always_says_when():
    assert Unavailable("away").retry_after == timedelta(seconds=1)
    assert Unavailable("away", retry_after=timedelta(seconds=9)).retry_after == timedelta(seconds=9)
    assert PermissionDenied("no").retry_after is None


def test_the_root_cause_is_found_through_nested_groups():
    wanted = Full("full")
    nested = ExceptionGroup("a", [ExceptionGroup("b", [ValueError("v"), wanted])])

    assert root_cause(nested) is wanted
    assert len(list(leaves(nested))) == 2


@pytest.mark.parametrize("shape", ["UnaryStream", "StreamStream"])
async def test_a_handler_that_yields_would_pass_by_every_check_and_is_refused(serve, shape):
    async def yields(_request, _context):
        yield b"a secret"

    channel = await serve(yields)

    with capture_logs() as logs:
        stream = channel.stream_stream(f"/test.Test/{shape}")()
        code, said = await stream.code(), await stream.details()

    assert (code, said) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "a handler that yields" in logs[0]["event"]
