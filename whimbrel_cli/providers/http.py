"""A small HTTP/2 server over TLS, with faults on demand: it may hang, or cut a connection."""

import asyncio
import enum
import itertools
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

_READ_BYTES = 65_536
_MOST_BODY_BYTES = 64 * 1024


@dataclass(slots=True)
class Request:
    """What a client asks."""

    method: str
    path: str
    headers: Mapping[str, str]
    connection: int  # which of all since the start
    body: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Reply:
    """What it is answered."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Fault(enum.Enum):
    """What happens in place of an answer."""

    HANG = "hang"
    RESET_STREAM = "reset the stream"
    CUT = "cut the connection"


Answers = Callable[[Request], Awaitable[Reply | Fault]]


class Http2Server:
    """Enter it to serve on a free or a given port of loopback."""

    def __init__(self, answers: Answers, tls: ssl.SSLContext, *, port: int = 0) -> None:
        self._answers = answers
        self._tls = tls
        self._port = port
        self._connections: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._tls
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a callback of start_server is a task
        self._connections.add(task)
        try:
            await _Connection(self._answers, reader, writer, next(self._numbers)).run()
        except (OSError, h2.exceptions.ProtocolError, asyncio.CancelledError):
            pass  # the client has gone, or we are being closed
        finally:
            self._connections.discard(task)
            writer.transport.abort()


class _Connection:
    """One client's connection."""

    def __init__(
        self,
        answers: Answers,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self._answers = answers
        self._reader = reader
        self._writer = writer
        self._number = number
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._requests: dict[int, Request] = {}

    async def run(self) -> None:
        """Serve until the client goes."""
        self._h2.initiate_connection()
        await self._flush()
        answering: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            while data := await self._reader.read(_READ_BYTES):
                for event in self._h2.receive_data(data):
                    request = self._take(event)
                    if request is not None:
                        task = tasks.create_task(self._answer(*request), name="answer")
                        answering.add(task)
                        task.add_done_callback(answering.discard)
                await self._flush()
            for task in answering:  # nobody reads what they say any more
                task.cancel()

    def _take(self, event: h2.events.Event) -> tuple[int, Request] | None:
        """The request that the event completes."""
        if isinstance(event, h2.events.RequestReceived):
            headers = {str(name): str(value) for name, value in event.headers or ()}
            path = urlsplit(headers[":path"]).path
            self._requests[event.stream_id or 0] = Request(
                headers[":method"], path, headers, self._number
            )
        elif isinstance(event, h2.events.DataReceived):
            stream_id = event.stream_id or 0
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
            body = self._requests[stream_id].body
            body += (event.data or b"")[: _MOST_BODY_BYTES - len(body)]
        elif isinstance(event, h2.events.StreamReset):
            self._requests.pop(event.stream_id or 0, None)
        elif isinstance(event, h2.events.StreamEnded):
            return event.stream_id or 0, self._requests[event.stream_id or 0]
        return None

    async def _answer(self, stream_id: int, request: Request) -> None:
        reply = await self._answers(request)
        if self._requests.pop(stream_id, None) is None or reply is Fault.HANG:
            return
        if reply is Fault.CUT:
            self._writer.transport.abort()
        elif reply is Fault.RESET_STREAM:
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif isinstance(reply, Reply):
            headers = [(":status", str(reply.status)), *reply.headers.items()]
            self._h2.send_headers(stream_id, headers, end_stream=not reply.body)
            if reply.body:
                self._h2.send_data(stream_id, reply.body, end_stream=True)
        await self._flush()

    async def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()
