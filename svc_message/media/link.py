"""What the media service is told: references of accepted messages, until it has kept them."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.ids import ulid_text
from svc_message.media.references import References
from svc_message.media.store import Reference
from whimbrel.media.v1 import media_pb2, media_pb2_grpc

# References of one shard.
Batch = tuple[str, Sequence[Reference]]


class ReferenceFeed:
    """Tells references, as Feed says."""

    service = "media"

    def __init__(self, references: References) -> None:
        self._references = references

    def open(self, channel: grpc.aio.Channel) -> Any:
        return media_pb2_grpc.MediaServiceStub(channel).Attach()

    def batches(self) -> AsyncGenerator[Batch, None]:
        return self._references.batches()

    def request(self, batch: Batch) -> media_pb2.AttachRequest:
        return media_pb2.AttachRequest(references=map(_reference, batch[1]))

    async def answered(self, batch: Batch, answer: media_pb2.AttachResponse) -> None:
        await self._references.settle(batch[0], answer.done)


def _reference(reference: Reference) -> media_pb2.Reference:
    expires_at = Timestamp()
    expires_at.FromDatetime(reference.expires_at)
    return media_pb2.Reference(
        id=reference.entry_id, media_id=ulid_text(reference.media_id), expires_at=expires_at
    )
