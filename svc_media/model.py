"""What the media service works with: uploads, their bounds, and why one is refused."""

from dataclasses import dataclass
from datetime import datetime

import grpc

from mesh.errors import InvalidArgument, ResourceExhausted, WhimbrelError

PART_BYTES = 16 * 1024 * 1024
# 2 GiB, and what padding adds to them.
MOST_BYTES = 2 * 1024**3 * 105 // 100 + 64


class MediaUnknown(WhimbrelError):
    """There is no such file, not any more, or it is not the caller's to complete."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "MEDIA_UNKNOWN"


class MediaTooLarge(InvalidArgument):
    """The file is larger than is allowed."""

    reason = "MEDIA_TOO_LARGE"


class MediaIncomplete(WhimbrelError):
    """Parts of the file are not in the store."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "MEDIA_INCOMPLETE"


class QuotaExceeded(ResourceExhausted):
    """The account has uploaded as many bytes as it may in a day."""

    reason = "MEDIA_QUOTA_EXCEEDED"


class RateLimited(ResourceExhausted):
    """The caller has done this too often; nothing was done."""

    reason = "RATE_LIMITED"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a device wants to upload; raises InvalidArgument, MediaTooLarge."""

    upload_id: bytes
    size: int
    sha256: bytes
    part_sha256: list[bytes]

    def __post_init__(self) -> None:
        if self.size > MOST_BYTES:
            raise MediaTooLarge("the file is too large", metadata={"allowed": str(MOST_BYTES)})
        parts = -(-self.size // PART_BYTES) if self.size > PART_BYTES else 0
        if len(self.part_sha256) != parts:
            raise InvalidArgument(
                "another number of parts",
                metadata={"field": "part_sha256", "allowed": f"{parts} items for this size"},
            )


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was granted room."""

    media_id: bytes
    key: str  # the object's name in the bucket, and the file's on the wire
    owner: bytes
    size: int
    sha256: bytes
    part_sha256: list[bytes]
    multipart_id: str | None
    is_complete: bool
    expires_at: datetime

    def part(self, number: int) -> tuple[int, int]:
        """Where part `number` (from 1) begins, and its size."""
        offset = (number - 1) * PART_BYTES
        return offset, min(PART_BYTES, self.size - offset)
