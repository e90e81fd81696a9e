"""The closed table of statuses: with which of them each reason comes, as its proto says."""

import functools
from collections.abc import Mapping

import grpc
from google.protobuf import descriptor_pool

from mesh.options import option

_REASONS = "whimbrel.error.v1.ErrorReason"
_STATUSES = "whimbrel.error.v1.statuses"
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


@functools.cache
def statuses() -> Mapping[str, frozenset[grpc.StatusCode]]:
    """The statuses of each reason. Raises KeyError in a process that has not loaded the proto."""
    reasons = descriptor_pool.Default().FindEnumTypeByName(_REASONS).values
    return {
        value.name.removeprefix("ERROR_REASON_"): frozenset(
            _BY_NUMBER[number] for number in option(value, _STATUSES) or ()
        )
        for value in reasons
    }


def is_agreed(code: grpc.StatusCode, reason: str) -> bool:
    """Whether a call may end with this status for this reason."""
    return code in statuses().get(reason, frozenset())
