"""The errors a call may end with, and their form on the wire; knows no reason of its own domain."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from mesh.statuses import is_agreed

log = structlog.get_logger(__name__)

DOMAIN = "whimbrel"


class WhimbrelError(Exception):
    """An expected failure: the caller learns the code, the reason and what to do about it.

    `reason` is the name of a value of whimbrel.error.v1.ErrorReason without its prefix.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    reason: str = "UNSPECIFIED"
    # What a retriable error says unless its raiser knows better.
    usual_retry_after: ClassVar[timedelta | None] = None

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = self.usual_retry_after if retry_after is None else retry_after


class Internal(WhimbrelError):
    """A bug. The log says which; the caller learns only that it was ours."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


class InvalidArgument(WhimbrelError):
    """A field that no retry makes right; `field` and `allowed` belong into the metadata."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "FIELD_INVALID"


class MetadataTooLarge(WhimbrelError):
    """The call's metadata is longer than the listener takes."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "METADATA_TOO_LARGE"


class Unauthenticated(WhimbrelError):
    """The caller did not prove who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "TOKEN_INVALID"


class TokenMissing(Unauthenticated):
    """The call carries no bearer token."""

    reason = "TOKEN_MISSING"


class TokenInvalid(Unauthenticated):
    """The token is malformed, forged, or meant for someone else."""

    reason = "TOKEN_INVALID"


class TokenExpired(Unauthenticated):
    """The token was good once: get a new one."""

    reason = "TOKEN_EXPIRED"


class PermissionDenied(WhimbrelError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "CALLER_NOT_ALLOWED"


class Unimplemented(WhimbrelError):
    """The method is not offered here."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "METHOD_UNKNOWN"


class ResourceExhausted(WhimbrelError):
    """A bound was reached; nothing of the request was taken."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"
    usual_retry_after = timedelta(seconds=1)


class Unavailable(WhimbrelError):
    """Something the call needs is away; the same call may succeed later."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"
    usual_retry_after = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed call says about itself, as its caller reads it."""

    code: grpc.StatusCode
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: timedelta | None = None


class PassedOn(WhimbrelError):
    """The failure of another service, which our own caller is told as it is."""

    def __init__(self, message: str, failure: "Failure") -> None:
        super().__init__(message, metadata=failure.metadata, retry_after=failure.retry_after)
        self.code, self.reason = failure.code, failure.reason


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: WhimbrelError) -> NoReturn:
    """End the call with the error's status, one ErrorInfo and, where it helps, more details.

    Nobody else ends a call. A status that the table does not know is a bug, and told as one.
    """
    if not is_agreed(error.code, error.reason):
        log.error("a status that is not in the table", code=error.code.name, reason=error.reason)
        error = Internal("internal error")
    status = rpc_status.to_status(status_of(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


def status_of(error: WhimbrelError) -> status_pb2.Status:
    """The error as google.rpc.Status."""
    details = [_packed(_info_of(error))]
    if "field" in error.metadata:
        details.append(_packed(_bad_request_of(error)))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        details.append(_packed(retry))
    code = code_pb2.Code.Value(error.code.name)
    return status_pb2.Status(code=code, message=error.message, details=details)


def failure_of(error: grpc.RpcError) -> Failure:
    """Read a failed call; the reason is empty when the failure is not one of ours."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return Failure(grpc.StatusCode.UNKNOWN)
    try:
        # It reads like a call that has ended, but the stubs do not know that.
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:  # the trailer contradicts the status: trust the status only
        status = None
    if status is None:
        return Failure(error.code())
    return _read(error.code(), status)


def reason_of(error: grpc.RpcError) -> tuple[str, Mapping[str, str], timedelta | None]:
    """The failed call's reason, metadata and time to retry."""
    failure = failure_of(error)
    return failure.reason, failure.metadata, failure.retry_after


def root_cause(error: BaseException) -> BaseException:
    """Look through a TaskGroup's wrapping: a chosen status first, then an expected error."""
    causes = list(leaves(error))
    for kind in (grpc.aio.AbortError, WhimbrelError):
        for cause in causes:
            if isinstance(cause, kind):
                return cause
    return causes[0]


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Each error inside nested ExceptionGroups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def _info_of(error: WhimbrelError) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)


def _bad_request_of(error: WhimbrelError) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=error.metadata["field"],
        description=error.metadata.get("allowed", ""),
        reason=error.reason,
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _packed(detail: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _read(code: grpc.StatusCode, status: status_pb2.Status) -> Failure:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    reason, metadata, retry_after = "", {}, None
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    return Failure(code, reason, metadata, retry_after)
