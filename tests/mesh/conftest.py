"""A server of bare handlers, so that what mesh does to calls can be seen without a proto."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest

from mesh.authority import Authority
from mesh.server import INTERNAL_LISTENER, Listener, bind, new_server, running
from tests.mesh.certified import Files, tls_of
from whimbrel.error.v1 import reason_pb2
from whimbrel_cli.stack.ports import LOOPBACK

assert reason_pb2  # the table of statuses, which every service has loaded

Behaviour = Callable[[Any, Any], Awaitable[Any]]
Serve = Callable[..., Awaitable[grpc.aio.Channel]]
Listen = Callable[..., Awaitable[str]]

METHODS = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler,
    "UnaryStream": grpc.unary_stream_rpc_method_handler,
    "StreamUnary": grpc.stream_unary_rpc_method_handler,
    "StreamStream": grpc.stream_stream_rpc_method_handler,
}


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """`address = await listen(behaviour)`: every shape of call at /test.Test/<shape> ends there."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            behaviour: Behaviour,
            *,
            listener: Listener = INTERNAL_LISTENER,
            interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        ) -> str:
            server = new_server(listener, interceptors=interceptors)
            handlers = {name: make(behaviour) for name, make in METHODS.items()}
            generic = grpc.method_handlers_generic_handler("test.Test", handlers)
            server.add_generic_rpc_handlers((generic,))
            address = bind(server, "127.0.0.1:0")
            await stack.enter_async_context(running(server, timedelta()))
            return address

        yield start


@pytest.fixture
async def serve(listen: Listen) -> AsyncIterator[Serve]:
    """`channel = await serve(behaviour)`: the same, with a channel to it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(behaviour: Behaviour, **options: Any) -> grpc.aio.Channel:
            address = await listen(behaviour, **options)
            return await stack.enter_async_context(grpc.aio.insecure_channel(address))

        yield start


@pytest.fixture
def call() -> Callable[..., Awaitable[Any]]:
    """`await call(channel, shape)`: call it, and return the answer or the error it ended with."""

    async def make_call(channel: grpc.aio.Channel, shape: str, **options: Any) -> Any:
        method = f"/test.Test/{shape}"
        try:
            if shape == "UnaryUnary":
                return await channel.unary_unary(method)(b"", **options)
            if shape == "UnaryStream":
                return await channel.unary_stream(method)(b"", **options).read()
            # Nothing is written: where a refusal crosses a write, grpc.aio's own client makes of it
            # "Internal error from Core".
            if shape == "StreamUnary":
                return await channel.stream_unary(method)(**options)
            return await channel.stream_stream(method)(**options).read()
        except grpc.aio.AioRpcError as error:
            return error

    return make_call


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Who is certified, and who is not."""
    directory = tmp_path_factory.mktemp("certificates")
    ours, theirs = Authority.at(directory / "ours"), Authority.at(directory / "theirs")
    server = ours.issue("store", hosts=[LOOPBACK])
    return Files(ours.ca, server, tls_of(ours, "mine"), tls_of(theirs, "theirs"))
