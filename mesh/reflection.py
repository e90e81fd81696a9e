"""Tells what a listener serves, as gRPC's reflection, to tools that have none of our protos.

Who may ask is the business of `mesh.access`. What else this process knows, such as the protos of
services that it calls, is not there for those who ask.
"""

import functools
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mesh.access import REFLECTION


def reflect(server: grpc.aio.Server) -> None:
    """Let the server tell of itself, and of every service that is added to it after this."""
    reflected = _Reflected()
    add = server.add_generic_rpc_handlers

    def noted(generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        handlers = tuple(generic_rpc_handlers)
        named = (one for one in handlers if isinstance(one, grpc.ServiceRpcHandler))
        reflected.services += (str(one.service_name()) for one in named)
        add(handlers)

    # A server does not tell what was added to it; all of it comes this way.
    server.add_generic_rpc_handlers = noted  # type: ignore[method-assign]
    handler = grpc.stream_stream_rpc_method_handler(
        reflected.answer,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for method in REFLECTION:  # the versions differ by their names alone
        _, service, name = method.split("/")
        noted((grpc.method_handlers_generic_handler(service, {name: handler}),))


class _Reflected:
    """The services of one server."""

    def __init__(self) -> None:
        self.services: list[str] = []

    async def answer(self, requests: Any, context: Any) -> None:
        # Ours never yield: see `mesh.interceptors`.
        async for answer in self._servicer.ServerReflectionInfo(requests, context):
            await context.write(answer)

    @functools.cached_property
    def _servicer(self) -> Any:
        """Made when somebody asks: then everything is added."""
        described, served = descriptor_pool.DescriptorPool(), []
        for name in self.services:
            try:
                service = descriptor_pool.Default().FindServiceByName(name)
            except KeyError:  # no proto of it is here
                continue
            _copy(service.file, described, set())
            served.append(name)
        return reflection.aio.ReflectionServicer(served, described)


def _copy(file: FileDescriptor, pool: descriptor_pool.DescriptorPool, seen: set[str]) -> None:
    """Add a file to the pool, after all that it imports."""
    if file.name not in seen:
        seen.add(file.name)
        for imported in file.dependencies:
            _copy(imported, pool, seen)
        pool.AddSerializedFile(file.serialized_pb)
