"""The Connect call: who calls, and whether there is room; everything after is the stream's."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from svc_gateway.authenticator import Authenticator
from svc_gateway.edge import Edge
from svc_gateway.ends import Overloaded, ServerDraining
from svc_gateway.stream import DeviceStream
from svc_gateway.writer import Context

log = structlog.get_logger(__name__)

_SERVICE = "whimbrel.gateway.v1.GatewayService"


class GatewayServicer:
    """Turns a Connect call into a device's stream."""

    def __init__(
        self,
        authenticator: Authenticator,
        edge: Edge,
        *,
        max_sessions: int,
        on_closed: Callable[[DeviceStream], object],
    ) -> None:
        self._authenticator = authenticator
        self._edge = edge
        self._max_sessions = max_sessions
        self._on_closed = on_closed
        self.streams: set[DeviceStream] = set()
        self.is_draining = False
        self.gone = asyncio.Event()  # while draining: the last stream has ended

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve the call there; frames come and go as bytes, which the streams read themselves."""
        connect: Any = grpc.stream_stream_rpc_method_handler(self.Connect)
        handler = grpc.method_handlers_generic_handler(_SERVICE, {"Connect": connect})
        server.add_generic_rpc_handlers((handler,))

    async def Connect(self, _requests: object, context: Context) -> None:
        device = self._authenticator.device_of(context)
        if self.is_draining:
            raise ServerDraining("the instance is being taken down")
        if len(self.streams) >= self._max_sessions:
            raise Overloaded("the instance has as many sessions as it can serve")
        stream = DeviceStream(device, self._edge)
        self.streams.add(stream)
        try:
            await stream.run(context)
        finally:
            self.streams.discard(stream)
            self._on_closed(stream)
            self._look_whether_gone()

    def refuse_more(self) -> None:
        """The instance is being taken down: no new streams."""
        self.is_draining = True
        self._look_whether_gone()

    def _look_whether_gone(self) -> None:
        if self.is_draining and not self.streams:
            self.gone.set()
