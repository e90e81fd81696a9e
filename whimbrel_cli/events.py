"""`whimbrel events`: what happens in the mesh that is up, as internal teams get it, a line each."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC
from pathlib import Path
from typing import Annotated

import grpc
import typer
from google.protobuf.message import Message

from mesh.errors import failure_of
from mesh.tls import Identity
from whimbrel.event.v1 import event_pb2, event_pb2_grpc
from whimbrel_cli.stack.description import find_mesh
from whimbrel_cli.stack.environment import EVENTS_READER, tls_settings
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.up import DEFAULT_DATA
from whimbrel_client.ids import id_text

_WAIT_MILLISECONDS = 5_000
_CALL_SECONDS = 10
_OFF = "EVENTS_OFF"

Show = Callable[[event_pb2.DomainEvent], str]


def events(
    data: Annotated[Path, typer.Option(help="The data directory of the mesh.")] = DEFAULT_DATA,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    group: Annotated[str, typer.Option(help="The consumer group that reads.")] = "tail",
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
) -> None:
    """Print what happens in the mesh, from where the group last stopped: ids, never a content.

    The mesh writes events when it was brought up with --kafka, or when its services are told
    WHIMBREL_MESSAGE_EVENTS__IS_ON=true.
    """
    try:
        asyncio.run(_print_all(data, group, _json if as_json else _line, count))
    except StackError as error:
        raise _failed(str(error)) from None
    except grpc.aio.AioRpcError as error:
        if failure_of(error).reason == _OFF:
            raise _failed("the mesh writes no events: bring it up with --kafka") from None
        raise _failed(f"the mesh does not answer: {error.details()}") from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _print_all(data: Path, group: str, show: Show, count: int | None) -> None:
    left = count
    async for event in _events(data, group):
        print(show(event), flush=True)
        left = None if left is None else left - 1
        if left == 0:
            break


async def _events(data: Path, group: str) -> AsyncIterator[event_pb2.DomainEvent]:
    """Each event; it is acknowledged once the caller asks for the one after its batch."""
    mesh = find_mesh(data)
    consumer = f"{socket.gethostname()}-{os.getpid()}".lower()
    identity = Identity(tls_settings(data, EVENTS_READER), EVENTS_READER)
    fetch = event_pb2.FetchRequest(
        group=group, consumer=consumer, wait_milliseconds=_WAIT_MILLISECONDS
    )
    async with identity.channel(mesh.message[0], "message") as channel:
        stub = event_pb2_grpc.EventServiceStub(channel)
        while True:
            batch = await stub.Fetch(fetch, timeout=_CALL_SECONDS)
            for event in batch.events:
                yield event
            ack = event_pb2.AckRequest(group=group, consumer=consumer, positions=batch.positions)
            await stub.Ack(ack, timeout=_CALL_SECONDS)


def _line(event: event_pb2.DomainEvent) -> str:
    time = event.happened_at.ToDatetime(UTC).astimezone().strftime("%H:%M:%S")
    fields = (f"{name}={value}" for name, value in _fields(event).items())
    return " ".join((time, event.WhichOneof("event") or "unknown", *fields))


def _json(event: event_pb2.DomainEvent) -> str:
    time = event.happened_at.ToDatetime(UTC).isoformat()
    what = event.WhichOneof("event") or "unknown"
    return json.dumps({"happened_at": time, "event": what, **_fields(event)})


def _fields(event: event_pb2.DomainEvent) -> dict[str, str | int]:
    which = event.WhichOneof("event")
    told: Message | None = getattr(event, which) if which else None
    fields = told.ListFields() if told else []
    return {
        field.name: id_text(value) if isinstance(value, bytes) else value for field, value in fields
    }


def _failed(why: str) -> typer.Exit:
    print(why, file=sys.stderr)
    return typer.Exit(1)
