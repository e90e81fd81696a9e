"""The requests to the message service, each encoded as a frame of one event with its id."""

from collections.abc import Iterable, Mapping

from svc_gateway.conversation import Conversation
from svc_gateway.sides import Request
from svc_gateway.traces import Acked
from whimbrel.message.v1 import attach_pb2, receipt_pb2, send_pb2

Address = tuple[bytes, int]  # a user id and a device id


def open_session(id_: int, address: Address, credential_version: int) -> bytes:
    """A device has connected."""
    frame, event = _frame(id_)
    _set(event.open.device, address)
    event.open.credential_version = credential_version
    return frame.SerializeToString()


def send(
    id_: int, address: Address, chat: Conversation, message: send_pb2.Send, trace: bytes = b""
) -> bytes:
    """A message of a device."""
    frame, event = _frame(id_)
    out = event.send
    _set(out.device, address)
    out.conversation_id, out.home = chat.conversation_id, chat.home
    out.send.CopyFrom(message)
    if trace:
        out.trace = trace
    return frame.SerializeToString()


def ack(id_: int, address: Address, up_to_pos: int, traced: Iterable[Acked] = ()) -> bytes:
    """A device has stored its queue up to a position."""
    frame, event = _frame(id_)
    _set(event.ack.device, address)
    event.ack.up_to_pos = up_to_pos
    for one in traced:
        event.ack.traces.add(
            pos=one.pos,
            trace=one.span.trace,
            author_id=one.author_id,
            group_id=one.group_id,
        )
    return frame.SerializeToString()


def read(id_: int, address: Address, conversation_id: bytes, message: receipt_pb2.Read) -> bytes:
    """A person has read a conversation."""
    frame, event = _frame(id_)
    out = event.read
    _set(out.device, address)
    out.conversation_id = conversation_id
    out.read.CopyFrom(message)
    return frame.SerializeToString()


def fetch_page(
    id_: int, address: Address, *, after_pos: int, max_envelopes: int, max_bytes: int
) -> bytes:
    """The next rows of a queue, please."""
    frame, event = _frame(id_)
    out = event.fetch_page
    _set(out.device, address)
    out.after_pos, out.max_envelopes, out.max_bytes = after_pos, max_envelopes, max_bytes
    return frame.SerializeToString()


def fetch_receipts(id_: int, user_id: bytes, after_version: int, max_receipts: int) -> bytes:
    """The next receipts, please."""
    frame, event = _frame(id_)
    out = event.fetch_receipts
    out.user_id, out.after_version, out.max_receipts = user_id, after_version, max_receipts
    return frame.SerializeToString()


def fetch_heads(id_: int, addresses: Iterable[Address]) -> bytes:
    """Where these queues stand, please."""
    frame, event = _frame(id_)
    for address in addresses:
        _set(event.fetch_heads.devices.add(), address)
    return frame.SerializeToString()


def fetch_subscriptions(id_: int, user_ids: Iterable[bytes]) -> bytes:
    """Which channels do these accounts follow, please."""
    frame, event = _frame(id_)
    event.fetch_subscriptions.user_ids.extend(user_ids)
    return frame.SerializeToString()


def fetch_channel_heads(id_: int, channel_ids: Iterable[bytes]) -> bytes:
    """Where these channels stand, please."""
    frame, event = _frame(id_)
    event.fetch_channel_heads.channel_ids.extend(channel_ids)
    return frame.SerializeToString()


def not_here(address: Address) -> bytes:
    """A push came for a session that is not here."""
    frame, event = _frame(0)
    _set(event.not_here.device, address)
    return frame.SerializeToString()


def hello(instance_id: str) -> bytes:
    """Who attaches."""
    frame, event = _frame(0)
    event.hello.instance_id = instance_id
    return frame.SerializeToString()


def asked_by(frame: bytes) -> attach_pb2.GatewayEvent:
    """The request that a frame holds."""
    return attach_pb2.AttachRequest.FromString(frame).events[0]


def kind_of(event: attach_pb2.GatewayEvent) -> Request:
    """Which request of a session it is."""
    return _KINDS[event.WhichOneof("event")]


_KINDS: Mapping[str | None, Request] = {
    "open": Request.OPEN,
    "ack": Request.ACK,
    "fetch_page": Request.PAGE,
    "fetch_receipts": Request.RECEIPTS,
}


def _frame(id_: int) -> tuple[attach_pb2.AttachRequest, attach_pb2.GatewayEvent]:
    frame = attach_pb2.AttachRequest()
    event = frame.events.add()
    if id_:
        event.id = id_
    return frame, event


def _set(device: attach_pb2.DeviceAddress, address: Address) -> None:
    device.user_id, device.device_id = address
