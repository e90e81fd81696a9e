"""Requests of every kind, from what their protos say they may hold: within bounds, and beyond."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from whimbrel.bounds.v1 import bounds_pb2

BYTES, STRING = FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING
TEXTS = (BYTES, STRING)
# A string of each form that a proto asks for.
OF_FORM = {
    r"\+[1-9][0-9]{7,14}": "+4915112345678",
    r"[a-z][a-z0-9_.]{2,31}": "alice",
    r"[a-z0-9._-]{1,64}": "billing",
    r"[ -~]{1,1024}": "token",
}


def services() -> Iterator[ServiceDescriptor]:
    """All services of all protos."""
    root = Path(bounds_pb2.__file__).parents[2]
    for path in sorted(root.rglob("*_pb2.py")):
        name = ".".join(("whimbrel", *path.relative_to(root).with_suffix("").parts))
        file: Any = importlib.import_module(name)
        yield from file.DESCRIPTOR.services_by_name.values()


SERVICES = list(services())


def bounds_of(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[bounds_pb2.bounds]


def is_ours(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is not None and message.full_name.startswith("whimbrel.")


def text(field: FieldDescriptor, length: int) -> Any:
    return b"x" * length if field.type == BYTES else "x" * length


def good(field: FieldDescriptor) -> Any:
    """A value of the field, or an item, that is within its bounds."""
    bounds = bounds_of(field)
    if is_ours(field):
        return filled(field.message_type)
    if field.message_type is not None:
        value = GetMessageClass(field.message_type)()
        value.seconds = bounds.min
        return value
    if field.type in TEXTS:
        form = OF_FORM.get(bounds.pattern)
        return form or text(field, bounds.length or bounds.min_length)
    return bounds.min or field.default_value


def put(message: Any, field: FieldDescriptor, values: list[Any]) -> None:
    """Let the field hold the values, or the one value."""
    message.ClearField(field.name)
    if field.is_repeated:
        getattr(message, field.name).extend(values)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(values[0])
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, values[0])


def filled(descriptor: Descriptor, *, choose: FieldDescriptor | None = None) -> Any:
    """A message that is within its bounds, with everything set that may be."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        oneof = field.containing_oneof
        chosen = None if oneof is None else oneof.fields[0]
        if choose is not None and oneof is not None and oneof == choose.containing_oneof:
            chosen = choose
        if chosen is None or chosen.name == field.name:
            put(message, field, [good(field)] * max(1, bounds_of(field).min_items))
    return message


def beyond(field: FieldDescriptor) -> Iterator[list[Any]]:
    """Values of the field, each of which breaks one of its bounds."""
    bounds = bounds_of(field)
    if bounds.max_items:
        yield [good(field)] * (bounds.max_items + 1)
    if bounds.min_items:
        yield [good(field)] * (bounds.min_items - 1)
    yield from ([value] for value in beyond_each(field, bounds))


def beyond_each(field: FieldDescriptor, bounds: Any) -> Iterator[Any]:
    if bounds.calendar or (field.message_type is not None and (bounds.min or bounds.max)):
        for seconds, nanos in ((10**12, 0), (-(10**12), 0), (bounds.min, -1)):
            yield GetMessageClass(field.message_type)(seconds=seconds, nanos=nanos)
    elif field.type in TEXTS:
        lengths = [bounds.length + 1, bounds.length - 1] if bounds.length else []
        lengths += [bounds.max_length + 1] if bounds.max_length else []
        lengths += [bounds.min_length - 1] if bounds.min_length else []
        yield from (text(field, length) for length in lengths)
        if bounds.pattern:
            yield from ("\n", f"{OF_FORM[bounds.pattern]}\n")
    else:
        yield from [bounds.max + 1] if bounds.max else []
        yield from [bounds.min - 1] if bounds.min else []
