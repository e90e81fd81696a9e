"""What stands inside a ciphertext: made here from what a person wants to say, and read."""

from typing import Protocol

from whimbrel.content.v1 import content_pb2
from whimbrel.content.v1.content_pb2 import Content

# Sends carry a ciphertext a device, and the mesh takes 192 KiB of them: this fits three devices.
MAX_CONTENT_BYTES = 60 * 1024

# Between clients; nobody sees them.
_NOT_SHOWN = frozenset(
    {"key_distribution", "retry_request", "profile_key", "history_request", "history", "mute"}
)
# What a person wants to be rung for.
_URGENT = frozenset({"text", "media", "reaction", "contact", "location", "poll"})


class Named(Protocol):
    """A message that others can refer to: a received or an own one."""

    @property
    def name(self) -> content_pb2.MessageName: ...


def text(body: str) -> Content:
    """Words."""
    return Content(text=content_pb2.Text(body=body))


def reply(to: Named, body: str) -> Content:
    """Words that answer a message."""
    return Content(text=content_pb2.Text(body=body), reply_to=to.name)


def reaction(to: Named, emoji: str) -> Content:
    """A sign on a message; an empty one takes it back."""
    return Content(reaction=content_pb2.Reaction(target=to.name, emoji=emoji))


def edit(of: Named, body: str) -> Content:
    """Other words for an own message."""
    return Content(edit=content_pb2.Edit(target=of.name, text=content_pb2.Text(body=body)))


def delete(of: Named) -> Content:
    """Takes an own message back, from everybody."""
    return Content(delete=content_pb2.Delete(target=of.name))


def retry_request(device_id: int, message_ids: list[bytes], group_id: bytes = b"") -> Content:
    """Asks a device to send again what could not be read; in a group, for lack of its key."""
    request = content_pb2.RetryRequest(
        device_id=device_id, message_ids=message_ids, group_id=group_id
    )
    return Content(retry_request=request)


def kind_of(content: Content) -> str:
    """The name of what it is; empty: newer than this version."""
    return content.WhichOneof("kind") or ""


def is_shown(content: Content) -> bool:
    """Whether it is anything that a person sees; what is unknown may well be."""
    return kind_of(content) not in _NOT_SHOWN


def is_urgent(content: bytes) -> bool:
    """Whether a person wants to be rung for it."""
    return kind_of(Content.FromString(content)) in _URGENT


def media_ids_in(content: bytes) -> list[str]:
    """What the mesh must keep as long as the message."""
    read = Content.FromString(content)
    return [read.media.pointer.media_id] if read.HasField("media") else []


def words_in(content: Content) -> str | None:
    """The words inside; None if there are none."""
    match kind_of(content):
        case "text":
            return content.text.body
        case "edit":
            return content.edit.text.body
        case _:
            return None
