"""What a message tells of its file, from what sealing it has found out and back."""

from whimbrel.content.v1.content_pb2 import Media, Pointer
from whimbrel_client.crypto import AttachmentKey, AttachmentPlan, Chunks
from whimbrel_client.media.errors import RangeUnproved


def pointer_of(media_id: str, plan: AttachmentPlan, *, with_chunks: bool = True) -> Pointer:
    """Where the file is and what opens it; `with_chunks`: also from its middle."""
    pointer = Pointer(media_id=media_id, key=plan.key.key, digest=plan.key.digest)
    if with_chunks and plan.chunks is not None:
        pointer.chunk_size = plan.chunks.size
        pointer.chunk_digests = plan.chunks.digests
    return pointer


def key_of(media: Media) -> AttachmentKey:
    """What opens the whole file."""
    return AttachmentKey(media.pointer.key, media.pointer.digest, media.size)


def chunks_of(media: Media) -> Chunks:
    """What proves its parts. Raises RangeUnproved if it tells of none, ForgedAttachment."""
    if not media.pointer.chunk_size:
        raise RangeUnproved("the message tells nothing that proves a part of the file")
    return Chunks(media.size, media.pointer.chunk_size, media.pointer.chunk_digests)
