"""Reports: what a person tells the operators of the mesh about somebody, with words they chose."""

import enum
import secrets
from collections.abc import Awaitable, Callable, Sequence

import grpc

from whimbrel.identity.v1 import report_pb2, report_pb2_grpc
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization
from whimbrel_client.model import Message

MOST_MESSAGES = 20

Token = Callable[[], Awaitable[str]]


class ReportReason(enum.IntEnum):
    """Why an account is reported."""

    SPAM = 1
    ABUSE = 2
    FRAUD = 3
    ILLEGAL = 4
    OTHER = 5


class Reporting:
    """Makes reports. Raises CallFailed and Unreachable."""

    def __init__(self, calls: IdentityCalls, token: Token) -> None:
        self._calls = calls
        self._token = token

    async def report(
        self, user_id: bytes, reason: ReportReason, messages: Sequence[Message]
    ) -> None:
        """Report the account with these messages of theirs. Raises ValueError for others."""
        request = report_pb2.ReportRequest(
            report_id=secrets.token_bytes(16),
            user_id=user_id,
            reason=report_pb2.ReportReason.ValueType(reason),
        )
        if len(messages) > MOST_MESSAGES:
            raise ValueError(f"a report has at most {MOST_MESSAGES} messages")
        for message in messages:
            if message.sender != user_id or message.text is None:
                raise ValueError("only words that the reported account has sent are reported")
            shown = request.messages.add(message_id=message.message_id, text=message.text)
            shown.accepted_at.FromDatetime(message.accepted_at)
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> None:
            stub = report_pb2_grpc.ReportServiceStub(channel)
            await stub.Report(request, timeout=CALL_SECONDS, metadata=metadata)

        await self._calls.anywhere(call)
