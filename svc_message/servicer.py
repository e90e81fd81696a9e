"""MessageService: proto to model and back; decides nothing."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import structlog

from mesh.access import caller
from mesh.clock import Clock
from mesh.errors import InvalidArgument, ResourceExhausted, Unavailable
from mesh.ids import slot_of, ulid_text
from mesh.telemetry import Telemetry
from svc_message.accepting import Accepting, FirstAnswer
from svc_message.attach import GatewayRequests, demand_hello, receipt_row
from svc_message.channels.following import Following
from svc_message.groups.accepting import GroupAccepting
from svc_message.groups.requests import GroupSend
from svc_message.groups.sending import read_group_send
from svc_message.groups.wire import fill_changes
from svc_message.inbox import Inbox
from svc_message.link import GatewayLink
from svc_message.model import Outcome, Refusal
from svc_message.requests import ReceiptsRequest, SendRequest
from svc_message.routing import Router
from svc_message.sending import read_send
from svc_message.to_gateway import (
    fill_accepted,
    fill_mismatch,
    fill_receipt,
    fill_refusal,
    fill_time,
)
from whimbrel.message.v1 import message_pb2, message_pb2_grpc

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
# Gives the calling team's service account, made at its first call.
ServiceAccount = Callable[[str], Awaitable[bytes]]

_MOST_RECEIPTS = 500
_SERVICE_DEVICE = 1


class Draining(Unavailable):
    """The instance is being taken down: repeat elsewhere what is not answered."""

    reason = "SERVER_DRAINING"


class StoreBusy(Unavailable):
    """The shard did not serve the call."""

    reason = "SHARD_UNAVAILABLE"


class MessageServicer(message_pb2_grpc.MessageServiceServicer):
    """Serves the gateways' streams and the internal teams' calls."""

    def __init__(
        self,
        accepting: Accepting,
        groups: GroupAccepting,
        inbox: Inbox,
        router: Router,
        service_account: ServiceAccount,
        *,
        following: Following,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._accepting = accepting
        self._groups = groups
        self._inbox = inbox
        self._following = following
        self._router = router
        self._service_account = service_account
        self._clock = clock
        self._telemetry = telemetry
        self._ended = asyncio.Event()
        self._streams = 0
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    async def end_streams(self) -> None:
        """End every Attach stream, its answers written; the gateways turn elsewhere."""
        self._ended.set()
        await self._all_gone.wait()

    async def Attach(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        link = await self._greeted(context)
        requests = GatewayRequests(
            link,
            self._accepting,
            self._groups,
            self._inbox,
            self._router,
            following=self._following,
            clock=self._clock,
        )
        self._router.attach(link)
        self._streams += 1
        self._all_gone.clear()
        log.info("gateway attached", gateway=link.instance_id)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(link.write_to(context.write), name="attach-write")
                await self._take_all(requests, link, context)
                link.close()
        finally:
            self._router.detach(link)
            self._streams -= 1
            if not self._streams:
                self._all_gone.set()
            log.info("gateway detached", gateway=link.instance_id)
        if self._ended.is_set():
            raise Draining("the instance is being taken down")

    async def _greeted(self, context: Context) -> GatewayLink:
        frame = await context.read()
        if frame is grpc.aio.EOF or len(frame.events) != 1 or not frame.events[0].hello.instance_id:
            raise InvalidArgument("the first frame is one hello with an instance_id")
        demand_hello(frame.events[0].hello)
        return GatewayLink(frame.events[0].hello.instance_id, self._telemetry)

    async def _take_all(
        self, requests: GatewayRequests, link: GatewayLink, context: Context
    ) -> None:
        """Take frames until the gateway half-closes or this instance is taken down."""
        reading = asyncio.create_task(self._read_all(requests, link, context), name="attach-read")
        ended = asyncio.create_task(self._ended.wait(), name="attach-ended")
        try:
            await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            for task in (reading, ended):
                task.cancel()
            await asyncio.gather(reading, ended, return_exceptions=True)

    async def _read_all(
        self, requests: GatewayRequests, link: GatewayLink, context: Context
    ) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            requests.take(frame)
            if link.is_overrun:
                raise ResourceExhausted("the gateway does not read what it is sent")

    async def Send(
        self, request: message_pb2.SendRequest, context: Context
    ) -> message_pb2.SendResponse:
        sender_id = await self._service_account(caller())
        span = self._telemetry.start_in_call("send")
        if span is None:
            return await self._send(request, sender_id)
        try:
            response = await self._send(request, sender_id, (span.trace,))
            span.set("answer", response.WhichOneof("outcome") or "")
            if response.HasField("accepted"):
                span.set("message.id", ulid_text(response.accepted.message_id))
        finally:
            span.end()
        return response

    async def _send(
        self, request: message_pb2.SendRequest, sender_id: bytes, traces: Sequence[bytes] = ()
    ) -> message_pb2.SendResponse:
        now = self._clock.now()
        if not request.send.HasField("first_tried_at"):
            fill_time(request.send.first_tried_at, now)
        response = message_pb2.SendResponse()
        answered = asyncio.get_running_loop().create_future()
        read = read_group_send if request.send.WhichOneof("to") == "group_id" else read_send
        send = read(request.send, sender_id, _SERVICE_DEVICE, now, None)
        if isinstance(send, Refusal):
            answered.set_result((None, send))
        elif isinstance(send, GroupSend):
            send.traces = traces
            self._groups.accept(send, _into(answered))
        else:
            send.traces, send.is_of_team = traces, True
            self._accepting.accept(send, _into(answered))
        first, refusal = await answered
        client_message_id = request.send.client_message_id
        if refusal is not None:
            response.rejected.client_message_id = client_message_id
            fill_refusal(response.rejected, refusal)
            if first is not None:
                _fill(response.rejected.first_answer, client_message_id, first)
        elif first is not None:
            _fill(response.accepted, client_message_id, first)
        elif isinstance(send, GroupSend):
            response.group_changed.client_message_id = client_message_id
            if send.changes is not None:
                fill_changes(response.group_changed, send.changes)
        else:
            assert isinstance(send, SendRequest)  # noqa: S101  a Refusal is answered above
            assert send.mismatch is not None  # noqa: S101
            fill_mismatch(response.device_mismatch, client_message_id, send.mismatch)
        return response

    async def GetReceipts(
        self, request: message_pb2.GetReceiptsRequest, context: Context
    ) -> message_pb2.GetReceiptsResponse:
        user_id = await self._service_account(caller())
        answered = asyncio.get_running_loop().create_future()
        self._inbox.ask(
            ReceiptsRequest(
                slot=slot_of(user_id),
                done=lambda _request, result: _set(answered, result),
                user_id=user_id,
                after_version=request.after_version,
                max_receipts=min(request.max_receipts or _MOST_RECEIPTS, _MOST_RECEIPTS),
            )
        )
        result = await answered
        if isinstance(result, Refusal) or result.outcome != Outcome.DONE:
            raise StoreBusy("the receipts cannot be read now")
        response = message_pb2.GetReceiptsResponse()
        fill_time(response.server_time, self._clock.now())
        for row in result.rows:
            if row["version"] is not None:
                fill_receipt(response.receipts.add(), receipt_row(user_id, row))
        return response


def _into(answered: asyncio.Future[Any]) -> Any:
    def answer(_send: Any, first: FirstAnswer | None, refusal: Refusal | None) -> None:
        _set(answered, (first, refusal))

    return answer


def _set(answered: asyncio.Future[Any], result: Any) -> None:
    # The caller may have gone away meanwhile; what was asked is done all the same.
    with contextlib.suppress(asyncio.InvalidStateError):
        answered.set_result(result)


def _fill(into: Any, client_message_id: bytes, first: FirstAnswer) -> None:
    fill_accepted(into, client_message_id, first.message_id, first.seq, first.accepted_at)
