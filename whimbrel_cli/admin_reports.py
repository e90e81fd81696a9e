"""`whimbrel admin reports`: what people have reported, by an operator's certificate."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC
from pathlib import Path
from typing import Annotated

import grpc
import typer

from mesh.errors import WhimbrelError
from mesh.tls import Identity
from whimbrel.identity.v1 import report_pb2, report_pb2_grpc
from whimbrel_cli.stack.description import find_mesh
from whimbrel_cli.stack.environment import OPERATOR, tls_settings
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.up import DEFAULT_DATA
from whimbrel_client.ids import id_text

_CALL_SECONDS = 10


def reports(
    data: Annotated[
        Path,
        typer.Option(
            help="The data directory of the mesh; tls/ in it has operator.pem and its key."
        ),
    ] = DEFAULT_DATA,
    *,
    address: Annotated[
        str, typer.Option("--message", help="host:port of a message instance, elsewhere.")
    ] = "",
    count: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Show what people have reported, newest first, with the words that they chose to show."""
    try:
        asyncio.run(_print_all(data, address, count, as_json=as_json))
    except (StackError, WhimbrelError) as error:
        raise _failed(str(error)) from None
    except grpc.aio.AioRpcError as error:
        raise _failed(f"the mesh does not answer: {error.details()}") from None


async def _print_all(data: Path, address: str, count: int | None, *, as_json: bool) -> None:
    left = count
    async for report in _reports(data, address):
        print(json.dumps(_fields(report)) if as_json else _lines(report), flush=True)
        left = None if left is None else left - 1
        if left == 0:
            break


async def _reports(data: Path, address: str) -> AsyncIterator[report_pb2.Report]:
    identity = Identity(tls_settings(data, OPERATOR), OPERATOR)
    request = report_pb2.ListReportsRequest()
    async with identity.channel(address or find_mesh(data).message[0], "message") as channel:
        stub = report_pb2_grpc.ReportServiceStub(channel)
        while True:
            page = await stub.ListReports(request, timeout=_CALL_SECONDS)
            for report in page.reports:
                yield report
            if not page.HasField("next"):
                return
            request.before.CopyFrom(page.next)


def _fields(report: report_pb2.Report) -> dict[str, object]:
    return {
        "report_id": report.report_id.hex(),
        "reported_at": report.reported_at.ToDatetime(UTC).isoformat(),
        "reporter": id_text(report.reporter_id),
        "user": id_text(report.user_id),
        "reason": _reason(report),
        "messages": [
            {
                "message_id": id_text(message.message_id),
                "accepted_at": message.accepted_at.ToDatetime(UTC).isoformat(),
                "text": message.text,
            }
            for message in report.messages
        ],
    }


def _lines(report: report_pb2.Report) -> str:
    time = report.reported_at.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    head = f"{time} {id_text(report.user_id)} {_reason(report)}, by {id_text(report.reporter_id)}"
    # What a stranger has written is not to move the operator's cursor.
    return "\n".join((head, *(f"    {message.text!r}" for message in report.messages)))


def _reason(report: report_pb2.Report) -> str:
    name = report_pb2.ReportReason.Name(report.reason)
    return name.removeprefix("REPORT_REASON_").lower()


def _failed(why: str) -> typer.Exit:
    print(why, file=sys.stderr)
    return typer.Exit(1)
