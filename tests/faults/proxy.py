"""Between the gateways and a message instance: loses or delays pushes, answers in its place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc

from mesh.server import INTERNAL_LISTENER, bind, new_server
from mesh.tls import Identity
from tests.e2e.meshes import new_folder
from whimbrel.message.v1 import attach_pb2
from whimbrel_cli.stack.mesh import Mesh

# The proxies have no certificates: their meshes do without.
_GATEWAY = Identity.insecure("gateway")

ATTACH = "/whimbrel.message.v1.MessageService/Attach"

Passes = Callable[[attach_pb2.MessageEvent], bool]
# The answer that the proxy gives to a request itself; None: the instance answers.
AnswersItself = Callable[[attach_pb2.GatewayEvent], attach_pb2.MessageEvent | None]

Write = Callable[[attach_pb2.AttachResponse], Awaitable[None]]


class MessageProxy(grpc.GenericRpcHandler):
    """What the gateways take for a message instance."""

    def __init__(self, target: Callable[[], str]) -> None:
        self.passes: Passes = lambda _event: True
        self.answers_itself: AnswersItself = lambda _event: None
        self.dropped = 0
        self.swaps_pushes = False
        self._held: list[attach_pb2.MessageEvent] = []
        self._target = target

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method == ATTACH:
            return grpc.stream_stream_rpc_method_handler(self._attach)

        async def pass_on(request: bytes, context: Any) -> bytes:
            async with _GATEWAY.channel(self._target(), "message") as channel:
                call: Any = channel.unary_unary(method)
                try:
                    answer: bytes = await call(request, metadata=_device_of(context), timeout=5)
                except grpc.aio.AioRpcError as error:
                    await context.abort(error.code(), error.details(), error.trailing_metadata())
                return answer

        return grpc.unary_unary_rpc_method_handler(pass_on)

    async def _attach(self, _requests: object, context: Any) -> None:
        one_at_a_time = asyncio.Lock()

        async def write(frame: attach_pb2.AttachResponse) -> None:
            async with one_at_a_time:
                await context.write(frame.SerializeToString())

        async with _GATEWAY.channel(self._target(), "message") as channel:
            call: Any = channel.stream_stream(ATTACH)()
            async with asyncio.TaskGroup() as tasks:
                passing = self._pass_up(context, call, write)
                upward = tasks.create_task(passing, name="proxy-up")
                while (frame := await call.read()) is not grpc.aio.EOF:
                    passed = self._filtered(frame)
                    if passed.events:
                        await write(passed)
                upward.cancel()
            await context.abort(await call.code(), "as the instance ended it")

    async def _pass_up(self, context: Any, call: Any, write: Write) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            asked = attach_pb2.AttachRequest.FromString(frame)
            answers = attach_pb2.AttachResponse()
            passed = attach_pb2.AttachRequest()
            for event in asked.events:
                answer = self.answers_itself(event)
                if answer is None:
                    passed.events.append(event)
                else:
                    answer.id = event.id
                    answers.events.append(answer)
            if answers.events:
                await write(answers)
            if passed.events:
                await call.write(passed.SerializeToString())
        await call.done_writing()

    def _filtered(self, frame: bytes) -> attach_pb2.AttachResponse:
        heard = attach_pb2.AttachResponse.FromString(frame)
        passed = [event for event in heard.events if event.id or self.passes(event)]
        self.dropped += len(heard.events) - len(passed)
        if self.swaps_pushes:
            passed = [*self._swapped(passed)]
        return attach_pb2.AttachResponse(events=passed)

    def _swapped(
        self, events: Iterable[attach_pb2.MessageEvent]
    ) -> Iterator[attach_pb2.MessageEvent]:
        """Let each push pass only behind the one that came after it."""
        for event in events:
            held, self._held = self._held, []
            if event.id:
                self._held = held
                yield event
            elif held:
                yield event
                yield from held
            else:
                self._held = [event]


@contextlib.asynccontextmanager
async def proxied_mesh(
    **settings: Any,
) -> AsyncIterator[tuple[Mesh, list[MessageProxy]]]:
    """A mesh whose gateways reach each of two message instances through a proxy only."""
    with new_folder() as folder:
        async with contextlib.AsyncExitStack() as running:
            proxies, env_of = [], {}
            for number in range(2):
                proxy = MessageProxy(lambda number=number: mesh.message_addresses[number])
                server = new_server(INTERNAL_LISTENER)
                server.add_generic_rpc_handlers((proxy,))
                address = bind(server, "127.0.0.1:0")
                await server.start()
                running.push_async_callback(server.stop, None)
                env_of[f"message-{number + 1}"] = {"WHIMBREL_MESSAGE_ADVERTISE": address}
                proxies.append(proxy)
            mesh = Mesh(folder, env_of=env_of, insecure=True, **settings)
            await running.enter_async_context(mesh)
            yield mesh, proxies


def _device_of(context: Any) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in context.invocation_metadata() if pair[0].startswith("whimbrel-"))
