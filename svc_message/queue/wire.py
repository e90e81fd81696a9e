"""Domain events and jobs as protobuf."""

from google.protobuf.message import DecodeError

from svc_message.queue.event_store import Event, EventKind
from svc_message.queue.model import Entry
from whimbrel.event.v1 import event_pb2, job_pb2


def entry_of(event: Event) -> Entry:
    """The event as teams get it."""
    told = event_pb2.DomainEvent()
    told.happened_at.FromDatetime(event.happened_at)
    _FILL[event.kind](told, event)
    return Entry(event.key_id, told.SerializeToString())


def job_of(group_id: bytes, seq: int) -> Entry:
    """Word that a group's message is due."""
    return Entry(group_id, job_pb2.FanOutDue(group_id=group_id, seq=seq).SerializeToString())


def read_job(entry: Entry) -> tuple[bytes, int]:
    """The group and the seq of a message that is due. Raises ValueError if it is no job."""
    try:
        job = job_pb2.FanOutDue.FromString(entry.value)
    except DecodeError as error:
        raise ValueError("no job") from error
    return job.group_id, job.seq


def _fill_accepted(told: event_pb2.DomainEvent, event: Event) -> None:
    told.accepted.conversation_id = event.key_id
    told.accepted.seq = event.number or 0
    told.accepted.message_id = event.message_id or b""
    told.accepted.sender_id = event.person_id or b""
    told.accepted.sender_device_id = event.device_id or 0


def _fill_delivered(told: event_pb2.DomainEvent, event: Event) -> None:
    told.delivered.conversation_id = event.key_id
    told.delivered.recipient_id = event.person_id or b""
    told.delivered.author_id = event.author_id or b""
    told.delivered.after_seq = event.after_seq or 0
    told.delivered.up_to_seq = event.number or 0


def _fill_read(told: event_pb2.DomainEvent, event: Event) -> None:
    told.read.conversation_id = event.key_id
    told.read.reader_id = event.person_id or b""
    told.read.author_id = event.author_id or b""
    told.read.up_to_seq = event.number or 0


def _fill_group_changed(told: event_pb2.DomainEvent, event: Event) -> None:
    told.group_changed.group_id = event.key_id
    told.group_changed.revision = event.number or 0
    told.group_changed.actor_id = event.person_id or b""


def _fill_device_linked(told: event_pb2.DomainEvent, event: Event) -> None:
    told.device_linked.user_id = event.key_id
    told.device_linked.device_id = event.device_id or 0


_FILL = {
    EventKind.ACCEPTED: _fill_accepted,
    EventKind.DELIVERED: _fill_delivered,
    EventKind.READ: _fill_read,
    EventKind.GROUP_CHANGED: _fill_group_changed,
    EventKind.DEVICE_LINKED: _fill_device_linked,
}
