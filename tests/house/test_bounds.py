"""Every field of every request: what its proto says it may hold is what it may hold."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from google.protobuf.descriptor import Descriptor, OneofDescriptor

from mesh.bounds import OutOfBounds, checker_of
from mesh.errors import status_of
from svc_gateway.sending import flaw_of
from svc_message.groups.sending import read_group_send
from svc_message.model import Refusal
from svc_message.sending import read_send
from tests.requests import SERVICES, TEXTS, beyond, bounds_of, filled, is_ours, put
from whimbrel.bounds.v1 import bounds_pb2
from whimbrel.message.v1 import message_pb2, send_pb2

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def requests() -> dict[str, Descriptor]:
    """Every message that a request is or holds, by name."""
    found: dict[str, Descriptor] = {}
    waiting = [method.input_type for service in SERVICES for method in service.methods]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in found:
            found[descriptor.full_name] = descriptor
            waiting += [field.message_type for field in descriptor.fields if is_ours(field)]
    return found


REQUESTS = requests()
FIELDS = {
    f"{name}.{field.name}": field
    for name, descriptor in REQUESTS.items()
    for field in descriptor.fields
}
BOUNDED = {n: f for n, f in FIELDS.items() if f.GetOptions().HasExtension(bounds_pb2.bounds)}
CHOICES = {
    f"{name}.{oneof.name}": oneof
    for name, descriptor in REQUESTS.items()
    for oneof in descriptor.oneofs
    if oneof.GetOptions().Extensions[bounds_pb2.choice].required
}


def test_every_field_of_bytes_and_every_list_of_every_request_has_a_bound() -> None:
    demanding = {n for n, f in FIELDS.items() if f.type in TEXTS or f.is_repeated}

    assert len(demanding) > 80
    assert demanding - BOUNDED.keys() == set()
    for name in demanding:
        bounds = bounds_of(FIELDS[name])
        if FIELDS[name].is_repeated:
            assert bounds.max_items or bounds.framed, name
        elif FIELDS[name].type in TEXTS:
            assert bounds.length or bounds.max_length or bounds.pattern or bounds.framed, name


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_within_its_bounds_is_taken(name: str) -> None:
    assert checker_of(REQUESTS[name]).violation(filled(REQUESTS[name])) is None


@pytest.mark.parametrize("name", BOUNDED)
def test_a_field_out_of_bounds_is_named_with_its_bound_and_never_its_value(name: str) -> None:
    field, checker = BOUNDED[name], checker_of(BOUNDED[name].containing_type)
    broken = 0

    for values in beyond(field):
        message = filled(field.containing_type, choose=field)
        put(message, field, values)
        with pytest.raises(OutOfBounds) as caught:
            checker.demand(message)
        assert caught.value.metadata["field"] == field.name, values
        assert caught.value.metadata["allowed"], name
        assert b"xx" not in status_of(caught.value).SerializeToString()
        broken += 1

    bounds = bounds_of(field)
    if bounds.required:
        message = filled(field.containing_type)
        message.ClearField(field.name)
        found = checker.violation(message)
        assert found is not None
        assert (found.field, found.allowed) == (field.name, "required")
        broken += 1
    assert broken or bounds.framed or bounds.answered, name


def test_no_other_form_of_a_name_is_taken() -> None:
    wrong = {
        "whimbrel.identity.v1.RegisterRequest.handle": (
            *("", "ab", "a" * 33, "Alice", "1alice", "_alice"),
            *("al ice", "alice\n", "ali\0ce", "älice", "a-b"),
        ),
        "whimbrel.identity.v1.RequestCodeRequest.phone_number": (
            *("", "+", "4915112345678", "+0151234567", "+123", "+1" * 20, "+4915112345678\n"),
        ),
        "whimbrel.event.v1.FetchRequest.group": ("", "a/b", "A", "x" * 65, "a\n"),
        "whimbrel.push.v1.SetTokenRequest.fcm": ("", "a" * 1025, "tök", "new\nline"),
    }

    for name, values in wrong.items():
        field = BOUNDED[name]
        for value in values:
            message = filled(field.containing_type, choose=field)
            setattr(message, field.name, value)
            found = checker_of(field.containing_type).violation(message)
            assert found is not None, (name, value)
            assert found.field == field.name


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_is_not_made_is_named(name: str) -> None:
    oneof: OneofDescriptor = CHOICES[name]
    message = filled(oneof.containing_type)
    message.ClearField(message.WhichOneof(oneof.name))

    found = checker_of(oneof.containing_type).violation(message)

    assert found is not None
    assert found.field == oneof.name
    assert all(field.name in found.allowed for field in oneof.fields)


def test_bounds_hold_in_whatever_a_request_holds() -> None:
    outer = {n: f for n, f in FIELDS.items() if is_ours(f) and not bounds_of(f).answered}
    seen = 0
    for name, field in outer.items():
        for inner in field.message_type.fields:
            values = next(beyond(inner), None)
            if values is None:
                continue
            broken = filled(field.message_type, choose=inner)
            put(broken, inner, values)
            message = filled(field.containing_type, choose=field)
            put(message, field, [broken])

            found = checker_of(field.containing_type).violation(message)

            place = f"{field.name}[0]" if field.is_repeated else field.name
            assert found is not None, name
            assert found.field == f"{place}.{inner.name}"
            seen += 1
    assert seen > 50


def good_send() -> send_pb2.Send:
    send = filled(send_pb2.Send.DESCRIPTOR)
    send.shared.type = send_pb2.CIPHERTEXT_TYPE_PLAIN
    send.media_ids[0] = "0" * 26
    send.first_tried_at.FromDatetime(NOW)
    return send


def bad_sends() -> Iterator[tuple[str, send_pb2.Send]]:
    for field in send_pb2.Send.DESCRIPTOR.fields:
        for values in beyond(field):
            send = good_send()
            put(send, field, values)
            yield field.name, send
    for field in send_pb2.SharedBody.DESCRIPTOR.fields:
        for values in beyond(field):
            send = good_send()
            put(send.shared, field, values)
            yield f"shared.{field.name}", send


def test_the_checks_that_sends_get_by_hand_for_speed_hold_the_same_bounds() -> None:
    read = {"user_id": read_send, "group_id": read_group_send}
    at_the_edge = {"client_message_id", "user_id", "group_id", "after", "shared.type"}
    assert isinstance(read_send(good_send(), b"s" * 16, 1, NOW, None), Refusal) is False

    seen = set()
    for name, send in bad_sends():
        taken = read[send.WhichOneof("to") or "user_id"](send, b"s" * 16, 1, NOW, None)
        assert isinstance(taken, Refusal), name
        assert flaw_of(send) is not None or name not in at_the_edge, name
        seen.add(name)
    assert seen >= at_the_edge | {"media_ids", "shared.ciphertext"}


def test_what_is_refused_in_the_answer_itself_is_not_refused_by_a_status() -> None:
    empty = message_pb2.SendRequest(send=send_pb2.Send())

    assert checker_of(message_pb2.SendRequest.DESCRIPTOR).violation(empty) is None
