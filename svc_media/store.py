"""The only SQL of the media service."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from mesh.batching import Batches
from mesh.errors import Unavailable
from mesh.ids import random_id, ulid_text
from mesh.postgres import STORE_ERRORS, Pool, fetch, is_transient
from svc_media.dependencies import OnHealth, silent
from svc_media.model import Draft, Upload

_COLUMNS = "media_id, owner, size, sha256, part_sha256, multipart_id, is_complete, expires_at"
_CREATE = f"""
SELECT upload_id, {_COLUMNS} FROM create_uploads($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""  # noqa: S608
_FIND = f"SELECT {_COLUMNS} FROM media WHERE media_id = ANY ($1::bytea[]) AND NOT is_ending"  # noqa: S608
_BEGIN_PARTS = """
UPDATE media SET multipart_id = $2 WHERE media_id = $1 AND multipart_id IS NULL
RETURNING multipart_id
"""
_COMPLETE = "UPDATE media SET is_complete = true WHERE media_id = $1"
_REFER = """
WITH told AS (
    SELECT media_id, max(until) AS until
    FROM unnest($1::bytea[], $2::timestamptz[]) AS t (media_id, until) GROUP BY media_id
)
UPDATE media m SET expires_at = greatest(m.expires_at, least(told.until, m.created_at + $3))
FROM told WHERE m.media_id = told.media_id AND NOT m.is_ending
"""
_END = f"""
UPDATE media SET is_ending = true WHERE media_id IN (
    SELECT media_id FROM media WHERE expires_at <= $1
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING {_COLUMNS}
"""  # noqa: S608
_FORGET = "DELETE FROM media WHERE media_id = ANY ($1::bytea[])"
_FORGET_USAGE = "DELETE FROM usage WHERE day < $1"


class StoreUnavailable(Unavailable):
    """The service's database cannot be reached."""


class _Wish(NamedTuple):
    """Room for a file, as the function takes it."""

    owner: bytes
    upload_id: bytes
    media_id: bytes
    size: int
    sha256: bytes
    parts: bytes
    now: datetime
    expires_at: datetime
    quota: int


class MediaStore:
    """What was granted, and until when it is kept."""

    def __init__(self, pool: Pool, on_health: OnHealth = silent) -> None:
        self._pool = pool
        self._on_health = on_health
        self._creating = Batches(self._create, is_of_all=_is_of_all)
        self._finding = Batches(self._find, is_of_all=_is_of_all)

    async def create(
        self, owner: bytes, draft: Draft, *, now: datetime, expires_at: datetime, quota: int
    ) -> Upload | None:
        """The owner's upload of this id, made if it is new; None: over the quota of the day."""
        parts = b"".join(draft.part_sha256)
        return await self._creating.ask(
            _Wish(
                *(owner, draft.upload_id, random_id(), draft.size, draft.sha256, parts),
                *(now, expires_at, quota),
            )
        )

    async def find(self, media_id: bytes, now: datetime) -> Upload | None:
        """A file that is not over."""
        upload = await self._finding.ask(media_id)
        return upload if upload is not None and upload.expires_at > now else None

    async def begin_parts(self, media_id: bytes, multipart_id: str) -> bool:
        """Note the store's name for the upload; whether no other was noted before."""
        return bool(await self._fetch(_BEGIN_PARTS, media_id, multipart_id))

    async def complete(self, media_id: bytes) -> None:
        """Note that it can be fetched."""
        await self._fetch(_COMPLETE, media_id)

    async def refer(
        self, references: Sequence[tuple[bytes, datetime]], *, longest: timedelta
    ) -> None:
        """Keep objects until these times, but no longer than `longest` from their creation."""
        media_ids, until = zip(*references, strict=True)
        await self._fetch(_REFER, media_ids, until, longest)

    async def end(self, now: datetime, limit: int) -> list[Upload]:
        """Mark what is over, so that nothing brings it back; what was marked before comes again."""
        return [_upload(row) for row in await self._fetch(_END, now, limit)]

    async def forget(self, media_ids: Sequence[bytes]) -> None:
        """Remove what the bucket has no more."""
        await self._fetch(_FORGET, media_ids)

    async def forget_usage(self, before: datetime) -> None:
        """Remove the tallies of days before this one."""
        await self._fetch(_FORGET_USAGE, before.date())

    async def _create(self, wishes: Sequence[_Wish]) -> list[Upload | None]:
        rows = await self._fetch(_CREATE, *zip(*wishes, strict=True))
        uploads = {(row["owner"], row["upload_id"]): _upload(row[1:]) for row in rows}
        return [uploads.get((wish.owner, wish.upload_id)) for wish in wishes]

    async def _find(self, media_ids: Sequence[bytes]) -> list[Upload | None]:
        rows = await self._fetch(_FIND, media_ids)
        uploads = {row["media_id"]: _upload(row) for row in rows}
        return [uploads.get(media_id) for media_id in media_ids]

    async def _fetch(self, statement: str, *arguments: object) -> list[Any]:
        try:
            rows = await fetch(self._pool, statement, *arguments)
        except STORE_ERRORS as error:
            self._on_health("database", is_well=False)
            raise StoreUnavailable("the media service's database cannot be reached") from error
        self._on_health("database", is_well=True)
        return rows


def _upload(row: Any) -> Upload:
    media_id, *columns = row
    return Upload(media_id, ulid_text(media_id), *columns)


def _is_of_all(error: Exception) -> bool:
    """Whether no single item of a batch is to blame."""
    cause = error.__cause__
    return isinstance(cause, Unavailable) or cause is None or is_transient(cause)
