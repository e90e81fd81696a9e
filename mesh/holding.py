"""Holds calls to the bounds of their requests, whatever the handler."""

import functools
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool

from mesh.bounds import Checker, checker_of
from mesh.interceptors import Behaviour, Continuation, Handler, wrapped


class BoundsInterceptor(grpc.aio.ServerInterceptor):
    """Refuses requests that are out of bounds, before their handler sees them.

    On a stream that is its end; where it need not be, the proto marks what the handler answers by
    itself (`answered`), and a request that holds nothing else is not looked at here.
    """

    def __init__(self) -> None:
        self._checkers: dict[str, Checker | None] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        if method not in self._checkers:  # it has a handler: such methods are few
            self._checkers[method] = _checker_of_method(method)
        checker = self._checkers[method]
        if checker is None:
            return handler
        hold = _held_stream if handler.request_streaming else _held
        return wrapped(handler, functools.partial(hold, checker))


def _held(checker: Checker, behaviour: Behaviour) -> Behaviour:
    @functools.wraps(behaviour)
    async def held(request: Any, context: Any) -> Any:
        checker.demand(request)
        return await behaviour(request, context)

    return held


def _held_stream(checker: Checker, behaviour: Behaviour) -> Behaviour:
    @functools.wraps(behaviour)
    async def held(requests: Any, context: Any) -> Any:
        return await behaviour(_each_held(checker, requests), _HeldContext(checker, context))

    return held


async def _each_held(checker: Checker, requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        checker.demand(request)
        yield request


class _HeldContext:
    """A call's context that reads what is within bounds, and raises OutOfBounds for the rest."""

    def __init__(self, checker: Checker, context: Any) -> None:
        self._checker = checker
        self._context = context
        self.write = context.write

    async def read(self) -> Any:
        request = await self._context.read()
        if request is not grpc.aio.EOF:
            self._checker.demand(request)
        return request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _checker_of_method(method: str) -> Checker | None:
    _, service, name = method.split("/")
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:  # made without a proto
        return None
    checker = checker_of(descriptor.methods_by_name[name].input_type)
    return checker if checker.is_needed else None
