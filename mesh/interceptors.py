"""What stands between gRPC and every handler: errors onto the wire, and refusals before the call.

Handlers are coroutines that write to the context, so one guard fits all four call shapes.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog

from mesh.errors import Internal, MetadataTooLarge, WhimbrelError, abort, leaves, root_cause

log = structlog.get_logger(__name__)

Behaviour = Callable[[Any, Any], Awaitable[Any]]
Handler = Any  # grpc.RpcMethodHandler: generic in ways that no caller can name
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]

_SHAPES = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps what a handler raises: an expected error to its status, a bug to a log line."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method: gRPC answers UNIMPLEMENTED itself
            return None
        return wrapped(handler, functools.partial(_guarded, handler_call_details.method))


class MetadataLimit(grpc.aio.ServerInterceptor):
    """Refuses long metadata: the transport's own limit counts compressed bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        error = MetadataTooLarge("too much metadata", metadata={"allowed": str(most_bytes)})
        self._refusal = refusal(error)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        pairs = handler_call_details.invocation_metadata or ()
        if sum(len(key) + len(value) for key, value in pairs) > self._most_bytes:
            return self._refusal
        return await continuation(handler_call_details)


def wrapped(handler: Handler, wrap: Callable[[Behaviour], Behaviour]) -> Handler:
    """The handler with its behaviour wrapped, whatever its shape, if it does not yield."""
    name, make = _SHAPES[handler.request_streaming, handler.response_streaming]
    behaviour = getattr(handler, name)
    if inspect.isasyncgenfunction(behaviour):
        # It cannot be wrapped, and unwrapped nobody would ask who calls.
        log.error("a handler that yields is refused to everybody", handler=behaviour.__qualname__)
        return refusal(Internal("internal error"))
    return make(wrap(behaviour), handler.request_deserializer, handler.response_serializer)


def refusal(error: WhimbrelError) -> Handler:
    """A handler that ends any call, of any shape, before its first message is read."""

    async def refuse(_requests: Any, context: Any) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)


def _guarded(method: str, behaviour: Behaviour) -> Behaviour:
    @functools.wraps(behaviour)
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await behaviour(request, context)
        except grpc.aio.AbortError:
            raise  # an interceptor, or gRPC's own health, has chosen a status
        except Exception as error:  # noqa: BLE001  the root of every call
            await _end(context, error, method)

    return guarded


async def _end(context: Any, error: Exception, method: str) -> None:
    cause = root_cause(error)  # looks through a TaskGroup's wrapping
    bugs = [leaf for leaf in leaves(error) if not _is_expected(leaf)]
    if bugs and not context.cancelled():
        log.error("unexpected failure", method=method, exc_info=error)
    if isinstance(cause, grpc.aio.AbortError):
        raise cause
    if not isinstance(cause, WhimbrelError):
        cause = Internal("internal error")
    await abort(context, cause)


def _is_expected(error: BaseException) -> bool:
    return isinstance(error, WhimbrelError | grpc.aio.AbortError)
