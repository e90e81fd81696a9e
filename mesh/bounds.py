"""Checks messages against the bounds that their protos state; knows no field by name.

A descriptor is compiled once, into a tuple of closures that each look at one field and say what is
wrong with it. What was sent is in no error: only the field, and what would have been allowed.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor

from mesh.errors import InvalidArgument
from mesh.options import option

# The options of proto/whimbrel/bounds/v1/bounds.proto.
_BOUNDS = "whimbrel.bounds.v1.bounds"
_CHOICE = "whimbrel.bounds.v1.choice"
_DURATION, _TIMESTAMP = "google.protobuf.Duration", "google.protobuf.Timestamp"
_TEXTS = frozenset((FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING))
# The seconds of the first moment of the year 1, and of the last second of the year 9999.
_CALENDAR = range(-62135596800, 253402300800)
_SECOND = 1_000_000_000
_FIELD_INVALID = 2  # of whimbrel.error.v1.ErrorReason


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that is out of bounds, what it may hold, and the reason for which it is refused."""

    field: str
    allowed: str
    reason: str = "FIELD_INVALID"

    def within(self, outer: str) -> "Violation":
        """The same, as seen from the message around."""
        return Violation(f"{outer}.{self.field}", self.allowed, self.reason)


class OutOfBounds(InvalidArgument):
    """A request with a field that holds what it may not."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(
            f"{violation.field} is out of bounds",
            metadata={"field": violation.field, "allowed": violation.allowed},
        )
        self.reason = violation.reason


M = TypeVar("M")
Check = Callable[[Any], Violation | None]
# Whether a value is allowed.
_Allows = Callable[[Any], bool]


class Checker:
    """The bounds of one kind of message."""

    def __init__(self, descriptor: Descriptor) -> None:
        checks = tuple(_checks_of(descriptor))
        self.is_needed = bool(checks)
        """Whether there is anything to look at."""
        self.violation = _first_of(checks)
        """The first field that is out of bounds, if there is one."""

    def parted(self, messages: Iterable[M]) -> tuple[list[M], list[tuple[M, Violation]]]:
        """Those that are within their bounds, and what is wrong with each of the others."""
        good: list[M] = []
        bad: list[tuple[M, Violation]] = []
        for message in messages:
            found = self.violation(message)
            if found is None:
                good.append(message)
            else:
                bad.append((message, found))
        return good, bad

    def demand(self, message: Any) -> None:
        """Raise OutOfBounds unless all is within its bounds."""
        found = self.violation(message)
        if found is not None:
            raise OutOfBounds(found)


@functools.cache
def checker_of(descriptor: Descriptor) -> Checker:
    """The checker of a message, made once."""
    return Checker(descriptor)


def described(bounds: Any, *, type_: int, type_name: str = "", is_repeated: bool = False) -> str:
    """What a field may hold, in words; `type_` and `type_name` as descriptors have them."""
    each = _describe_value(bounds, type_, type_name)
    if not is_repeated:
        return each
    counted = _range(bounds.min_items, bounds.max_items, "items")
    if bounds.framed and not bounds.max_items:
        counted = ", ".join(filter(None, (counted, "as many as a frame holds")))
    return ", each of ".join(filter(None, (counted, each)))


def _first_of(checks: tuple[Check, ...]) -> Check:
    """What the first check finds that finds something; most messages have one or two."""
    if len(checks) == 1:
        return checks[0]
    if len(checks) == 2:
        one, other = checks
        return lambda message: one(message) or other(message)

    def first(message: Any) -> Violation | None:
        for check in checks:
            found = check(message)
            if found is not None:
                return found
        return None

    return first


def _checks_of(descriptor: Descriptor) -> Iterator[Check]:
    for oneof in descriptor.oneofs:
        check = _one_of(oneof)
        if check is not None:
            yield check
    for field in descriptor.fields:
        check = _check_of(field)
        if check is not None:
            yield check


def _one_of(oneof: OneofDescriptor) -> Check | None:
    """Looks at the one that is set, however many there are."""
    checks = {field.name: _check_of_value(field) for field in oneof.fields}
    choice = option(oneof, _CHOICE)
    is_required = choice is not None and choice.required
    if not (is_required or any(checks.values())):
        return None
    name, wrong = oneof.name, None
    if is_required:
        allowed = " or ".join(field.name for field in oneof.fields)
        wrong = Violation(name, allowed, _reason_of(choice))

    def check(message: Any) -> Violation | None:
        chosen = message.WhichOneof(name)
        if chosen is None:
            return wrong
        of_value = checks[chosen]
        return None if of_value is None else of_value(getattr(message, chosen))

    return check


def _check_of(field: FieldDescriptor) -> Check | None:
    if field.containing_oneof is not None:
        return None  # see above; what is `optional` is one of one
    bounds = option(field, _BOUNDS)
    if field.is_repeated:
        return _repeated(field, bounds)
    if field.has_presence:
        return _present(field, bounds)
    return _plain(field, bounds)


def _check_of_value(field: FieldDescriptor) -> Check | None:
    """Looks at a value of the field, or at an item of it."""
    name, bounds, nested = field.name, option(field, _BOUNDS), _nested(field)
    if nested is not None:
        violation = nested.violation

        def inside(value: Any) -> Violation | None:
            found = violation(value)
            return None if found is None else found.within(name)

        return inside
    allows = None if bounds is None else _allows(field, bounds)
    if allows is None:
        return None
    wrong = _violation_of(field, bounds)
    return lambda value: None if allows(value) else wrong


def _nested(field: FieldDescriptor) -> Checker | None:
    """What looks into a message of ours, if there is anything to look at."""
    bounds = option(field, _BOUNDS)
    if not _is_our_message(field) or (bounds is not None and bounds.answered):
        return None
    nested = checker_of(field.message_type)
    return nested if nested.is_needed else None


def _plain(field: FieldDescriptor, bounds: Any) -> Check | None:
    allows = None if bounds is None else _allows(field, bounds)
    if allows is None:
        return None
    name, wrong = field.name, _violation_of(field, bounds)
    if bounds.length:  # most of all fields: the ids
        lengths = (bounds.length, 0) if bounds.or_empty else (bounds.length,)
        return lambda message: None if len(getattr(message, name)) in lengths else wrong
    if field.type not in _TEXTS:
        least, most = bounds.min, bounds.max or math.inf
        return lambda message: None if least <= getattr(message, name) <= most else wrong
    return lambda message: None if allows(getattr(message, name)) else wrong


def _present(field: FieldDescriptor, bounds: Any) -> Check | None:
    of_value, name = _check_of_value(field), field.name
    missing = _violation_of(field, bounds) if bounds is not None and bounds.required else None
    if of_value is None:
        return None if missing is None else lambda m: None if m.HasField(name) else missing

    def check(message: Any) -> Violation | None:
        return of_value(getattr(message, name)) if message.HasField(name) else missing

    return check


def _repeated(field: FieldDescriptor, bounds: Any) -> Check | None:
    name, nested, wrong = field.name, _nested(field), _violation_of(field, bounds)
    allows = None if bounds is None else _allows(field, bounds)
    least = 0 if bounds is None else bounds.min_items
    most = 0 if bounds is None else bounds.max_items
    if not (least or most or allows or nested):
        return None

    def check(message: Any) -> Violation | None:
        values = getattr(message, name)
        if len(values) < least or 0 < most < len(values):
            return wrong
        if allows is not None and not all(map(allows, values)):
            return wrong
        if nested is not None:
            for place, value in enumerate(values):
                found = nested.violation(value)
                if found is not None:
                    return found.within(f"{name}[{place}]")
        return None

    return check


def _allows(field: FieldDescriptor, bounds: Any) -> _Allows | None:
    """What tells an allowed value of the field, or item of it; None if all are."""
    if field.message_type is not None:
        return _allows_time(field.message_type.full_name, bounds)
    if field.type not in _TEXTS:
        least, most = bounds.min, bounds.max or math.inf
        if bounds.min or bounds.max:
            return lambda value: least <= value <= most
        return None
    allows = _allows_text(bounds)
    if allows is None or not bounds.or_empty:
        return allows
    return lambda value: not value or allows(value)


def _allows_text(bounds: Any) -> _Allows | None:
    if bounds.pattern:
        form = re.compile(bounds.pattern)
        return lambda value: form.fullmatch(value) is not None
    if bounds.length:
        length = bounds.length
        return lambda value: len(value) == length
    least, most = bounds.min_length, bounds.max_length
    if least or most:
        return lambda value: len(value) >= least and (not most or len(value) <= most)
    return None


def _allows_time(kind: str, bounds: Any) -> _Allows | None:
    if kind == _DURATION:
        least, most = bounds.min, bounds.max
        return lambda span: not span.nanos and least <= span.seconds <= (most or span.seconds)
    if kind == _TIMESTAMP and bounds.calendar:
        return lambda time: time.seconds in _CALENDAR and 0 <= time.nanos < _SECOND
    return None


def _is_our_message(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is not None and not message.full_name.startswith("google.protobuf.")


def _violation_of(field: FieldDescriptor, bounds: Any) -> Violation:
    if bounds is None:
        return Violation(field.name, "")
    name = "" if field.message_type is None else field.message_type.full_name
    allowed = described(bounds, type_=field.type, type_name=name, is_repeated=field.is_repeated)
    return Violation(field.name, allowed, _reason_of(bounds))


def _reason_of(bounds: Any) -> str:
    reasons = bounds.DESCRIPTOR.fields_by_name["reason"].enum_type.values_by_number
    return str(reasons[bounds.reason or _FIELD_INVALID].name).removeprefix("ERROR_REASON_")


def _describe_value(bounds: Any, type_: int, type_name: str) -> str:
    if type_name.lstrip(".") == _DURATION:
        return _range(bounds.min, bounds.max, "whole seconds")
    if bounds.calendar:
        return "a time from the year 1 to the year 9999"
    if bounds.required:
        return "required"
    if bounds.pattern:
        return _or_empty(bounds, bounds.pattern)
    if type_ in _TEXTS:
        return _describe_text(bounds, type_)
    return _range(bounds.min, bounds.max, "")


def _describe_text(bounds: Any, type_: int) -> str:
    unit = "bytes" if type_ == FieldDescriptor.TYPE_BYTES else "characters"
    if bounds.length:
        return _or_empty(bounds, f"{bounds.length} {unit}")
    ranged = _range(bounds.min_length, bounds.max_length, unit)
    return ", ".join(filter(None, (ranged, "as a frame holds" if bounds.framed else "")))


def _or_empty(bounds: Any, allowed: str) -> str:
    return f"{allowed}, or empty" if bounds.or_empty else allowed


def _range(least: int, most: int, unit: str) -> str:
    said = ""
    if least and most:
        said = str(least) if least == most else f"{least} to {most}"
    elif most:
        said = f"at most {most}"
    elif least:
        said = f"at least {least}"
    return f"{said} {unit}".strip() if said else ""
