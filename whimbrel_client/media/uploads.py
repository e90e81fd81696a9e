"""Uploads that are under way, in the local store: what a crash interrupts is resumed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whimbrel_client.crypto import AttachmentKey, AttachmentPlan, Chunks
from whimbrel_client.database import Database

_DIGEST = 32
_CHAIN = 16

_KEEP = """
INSERT OR REPLACE INTO upload (path, size, changed_at, upload_id, key, digest, iv, tag, part_size,
    part_digests, chains, chunk_size, chunk_digests)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_FIND = """
SELECT upload_id, key, digest, size, iv, tag, part_size, part_digests, chains, chunk_size,
    chunk_digests
FROM upload WHERE path = ? AND size = ? AND changed_at = ?
"""
_FORGET = "DELETE FROM upload WHERE upload_id = ?"


@dataclass(frozen=True, slots=True)
class Version:
    """A file as it is now: another size or time is another file."""

    path: str
    size: int
    changed_at: int  # nanoseconds

    @classmethod
    def of(cls, path: Path) -> "Version":
        """Look; raises OSError."""
        status = path.stat()
        return cls(str(path.resolve()), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload that has begun: its id at the mesh, and what the first pass found out."""

    upload_id: bytes
    plan: AttachmentPlan


class UploadStore:
    """The table of uploads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, version: Version) -> Begun | None:
        """What was begun of this version of a file."""
        wanted = (version.path, version.size, version.changed_at)
        rows = await self._database.run(lambda c: c.execute(_FIND, wanted).fetchall())
        return _begun(*rows[0]) if rows else None

    async def keep(self, version: Version, begun: Begun) -> None:
        """Remember it before the first byte goes."""
        plan = begun.plan
        row = (
            *(version.path, version.size, version.changed_at, begun.upload_id),
            *(plan.key.key, plan.key.digest, plan.iv, plan.tag, plan.part_size),
            *(b"".join(plan.part_digests), b"".join(plan.chains)),
            *((plan.chunks.size, plan.chunks.digests) if plan.chunks else (0, b"")),
        )
        await self._database.run(lambda c: c.execute(_KEEP, row))

    async def forget(self, upload_id: bytes) -> None:
        """It is told in a message, or of no use any more."""
        await self._database.run(lambda c: c.execute(_FORGET, (upload_id,)))


def _begun(upload_id: bytes, key: bytes, digest: bytes, size: int, *plan: Any) -> Begun:
    iv, tag, part_size, digests, chains, chunk_size, chunk_digests = plan
    attachment = AttachmentKey(key, digest, size)
    parts = (_split(digests, _DIGEST), _split(chains, _CHAIN))
    chunks = Chunks(size, chunk_size, chunk_digests) if chunk_size else None
    return Begun(upload_id, AttachmentPlan(attachment, iv, tag, part_size, *parts, chunks))


def _split(joined: bytes, size: int) -> list[bytes]:
    return [joined[at : at + size] for at in range(0, len(joined), size)]
