import asyncio
import contextlib
import signal
import sys
from datetime import timedelta

import grpc
import pytest

from mesh.errors import reason_of
from mesh.server import CLIENT_LISTENER, INTERNAL_LISTENER, bind, new_server, running

SHAPES = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]

PROGRAM = """
import asyncio, sys
from mesh import logs
from mesh.server import run_until_signalled

async def main(stop):
    print("up", flush=True)
    await stop.wait()
    print("draining", flush=True)
    if sys.argv[1] == "stuck":
        await asyncio.Event().wait()
    print("down", flush=True)

logs.configure()
run_until_signalled(main)
"""


async def echo(request, context):
    if isinstance(request, bytes):
        return request
    async for message in request:
        await context.write(message)
    return None


@contextlib.asynccontextmanager
async def program(kind):
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, kind),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert await running.stdout.readline() == b"up\n"
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


@pytest.mark.parametrize("shape", SHAPES)
async def test_long_metadata_is_refused_before_the_handler_runs(serve, call, shape):
    handled = []
    channel = await serve(lambda request, _context: handled.append(request))

    error = await call(channel, shape, metadata=(("noise", "x" * 17_000),))

    assert reason_of(error)[:2] == ("METADATA_TOO_LARGE", {"allowed": "16384"})
    assert handled == []


async def test_a_refusal_does_not_wait_for_a_message(serve):
    channel = await serve(echo)

    stream = channel.stream_stream("/test.Test/UnaryUnary")(metadata=(("a", "x" * 17_000),))

    async with asyncio.timeout(5):
        assert await stream.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_above_the_bound_of_a_client_listener_ends_the_call(serve):
    channel = await serve(echo, listener=CLIENT_LISTENER)

    call = channel.unary_unary("/test.Test/UnaryUnary")
    assert await call(b"x" * 200_000) == b"x" * 200_000
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"x" * (256 * 1024 + 1))

    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_client_connection_gets_eight_streams_and_a_ninth_waits(serve):
    begun = []

    async def count_and_echo(requests, context):
        begun.append(context)
        await echo(requests, context)

    async def round_trip(stream):
        await stream.write(b"x")
        assert await stream.read() == b"x"

    channel = await serve(count_and_echo, listener=CLIENT_LISTENER)
    open_stream = channel.stream_stream("/test.Test/StreamStream")

    streams = [open_stream() for _ in range(8)]
    for stream in streams:
        await round_trip(stream)
    ninth = open_stream()
    waiting = asyncio.ensure_future(round_trip(ninth))
    for _ in range(20):  # time enough for a stream that is let in
        await round_trip(streams[0])
    assert len(begun) == 8
    await streams[0].done_writing()
    await waiting

    assert len(begun) == 9
    for stream in [*streams, ninth]:
        stream.cancel()


async def test_a_taken_port_is_named():
    first, second = new_server(INTERNAL_LISTENER), new_server(INTERNAL_LISTENER)
    address = bind(first, "127.0.0.1:0")
    await first.start()

    with pytest.raises(OSError, match=address):
        bind(second, address)

    await first.stop(None)


async def test_leaving_the_block_refuses_new_calls_and_gives_open_ones_their_grace():
    begun, released = asyncio.Event(), asyncio.Event()

    async def slow(request, _context):
        if request == b"kept":
            begun.set()
            await released.wait()
        return request

    server = new_server(INTERNAL_LISTENER)
    handlers = {"Slow": grpc.unary_unary_rpc_method_handler(slow)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
    address = bind(server, "127.0.0.1:0")

    async def release_once_new_calls_are_refused(call):
        with contextlib.suppress(grpc.aio.AioRpcError):
            while True:
                await call(b"new")
        released.set()

    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/test.Test/Slow")
        async with running(server, timedelta(seconds=30)):
            calling = asyncio.ensure_future(call(b"kept"))
            await begun.wait()
            releasing = asyncio.ensure_future(release_once_new_calls_are_refused(call))

        assert await calling == b"kept"
        await releasing


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_drains(number):
    async with program("well") as process:
        process.send_signal(number)

        said = await process.stdout.read()

        assert said == b"draining\ndown\n"
        assert await process.wait() == 0


async def test_the_second_signal_exits_at_once():
    async with program("stuck") as process:
        process.send_signal(signal.SIGTERM)
        assert await process.stdout.readline() == b"draining\n"

        process.send_signal(signal.SIGTERM)

        assert await process.wait() == -signal.SIGTERM
