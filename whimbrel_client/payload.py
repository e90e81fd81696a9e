"""What stands inside a ciphertext, and the bytes of a send; plain until encryption comes."""

from google.protobuf.message import DecodeError

from whimbrel.content.v1 import content_pb2
from whimbrel.message.v1 import send_pb2

# Of all ciphertexts of one send; the mesh refuses more.
MAX_BODY_BYTES = 192 * 1024


def body_of(text: str) -> bytes:
    """The ciphertext that carries these words."""
    return content_pb2.Content(text=content_pb2.Text(body=text)).SerializeToString()


def send_of(user_id: bytes, body: bytes, *, client_message_id: bytes) -> bytes:
    """The bytes that every try of a send repeats: all but `after` and `first_tried_at`."""
    shared = send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_PLAIN, ciphertext=body)
    send = send_pb2.Send(client_message_id=client_message_id, user_id=user_id, shared=shared)
    return send.SerializeToString()


def text_of(ciphertext_type: int, ciphertext: bytes) -> str | None:
    """The words inside; None if there are none, or none that this version can read."""
    if ciphertext_type != send_pb2.CIPHERTEXT_TYPE_PLAIN:
        return None
    try:
        content = content_pb2.Content.FromString(ciphertext)
    except DecodeError:
        return None
    return content.text.body if content.HasField("text") else None
