"""ReportService on the wire: proto to model and back; decides nothing."""

from datetime import UTC
from typing import Any

import grpc

from mesh.caller import caller_of
from mesh.errors import InvalidArgument
from svc_message.identity.reports import NewReport, Reports
from svc_message.identity.reports_store import Cursor, Kept
from svc_message.to_gateway import fill_time
from whimbrel.identity.v1 import report_pb2, report_pb2_grpc


class ReportServicer(report_pb2_grpc.ReportServiceServicer):
    """Serves ReportService to the gateways and to operators."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve there."""
        report_pb2_grpc.add_ReportServiceServicer_to_server(self, server)

    async def Report(
        self, request: report_pb2.ReportRequest, context: Any
    ) -> report_pb2.ReportResponse:
        await self._reports.report(caller_of(context), _read(request))
        return report_pb2.ReportResponse()

    async def ListReports(
        self, request: report_pb2.ListReportsRequest, context: Any
    ) -> report_pb2.ListReportsResponse:
        before = _read_cursor(request.before) if request.HasField("before") else None
        page, after = await self._reports.page(before, request.max_reports)
        response = report_pb2.ListReportsResponse()
        for kept in page:
            _fill(response.reports.add(), kept)
        if after is not None:
            response.next.report_id = after[1]
            fill_time(response.next.reported_at, after[0])
        return response


def _read(request: report_pb2.ReportRequest) -> NewReport:
    return NewReport(
        request.report_id,
        request.user_id,
        request.reason,
        [message.message_id for message in request.messages],
        request.SerializeToString(),
    )


def _fill(into: report_pb2.Report, kept: Kept) -> None:
    said = report_pb2.ReportRequest.FromString(kept.content)
    into.report_id, into.reporter_id = kept.report_id, kept.user_id
    into.user_id, into.reason = said.user_id, said.reason
    fill_time(into.reported_at, kept.reported_at)
    into.messages.extend(said.messages)


def _read_cursor(cursor: report_pb2.ReportCursor) -> Cursor:
    try:
        return cursor.reported_at.ToDatetime(UTC), cursor.report_id
    except (ValueError, OverflowError):
        raise InvalidArgument(
            "no time", metadata={"field": "before.reported_at", "allowed": "a time"}
        ) from None
