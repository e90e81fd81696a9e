"""Who may put what into the store, and who may fetch it; each answer is a URL that says so."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mesh.clock import Clock
from svc_media.allowance import Allowance
from svc_media.model import (
    Draft,
    MediaIncomplete,
    MediaUnknown,
    QuotaExceeded,
    Upload,
)
from svc_media.objects import ObjectStore
from svc_media.signing import Bucket, Edge
from svc_media.store import MediaStore

# Whatever its uploader called it, a browser neither shows nor runs it.
_AS_BYTES = {
    "response-content-type": "application/octet-stream",
    "response-content-disposition": "attachment",
}


@dataclass(frozen=True, slots=True)
class Put:
    """One request that brings bytes."""

    url: str = field(repr=False)
    headers: Mapping[str, str]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Granted:
    """What is still to be put, and until when it may be."""

    media_id: str
    puts: list[Put]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """The bounds that an operator sets."""

    url_lifetime: timedelta
    orphans: timedelta
    quota: int


class Grants:
    """The use cases of devices."""

    def __init__(
        self,
        store: MediaStore,
        objects: ObjectStore,
        bucket: Bucket,
        edge: Edge | None,
        allowance: Allowance,
        *,
        policy: Policy,
        clock: Clock,
    ) -> None:
        """`bucket` as devices reach it; `edge`: what they fetch from instead."""
        self._store = store
        self._objects = objects
        self._bucket = bucket
        self._edge = edge
        self._allowance = allowance
        self._policy = policy
        self._clock = clock

    async def create_upload(self, owner: bytes, draft: Draft) -> Granted:
        """Room for one file, or what is missing of it. Raises QuotaExceeded, RateLimited."""
        self._allowance.take(owner)
        now, policy = self._clock.now(), self._policy
        upload = await self._store.create(
            owner, draft, now=now, expires_at=now + policy.orphans, quota=policy.quota
        )
        if upload is None:
            raise QuotaExceeded(
                "as many bytes as a day has",
                metadata={"allowed": str(policy.quota)},
                retry_after=_until_tomorrow(now),
            )
        # No URL outlives its file: what comes after the sweep would stay.
        if upload.expires_at < now + policy.url_lifetime:
            raise MediaUnknown("the upload is over")
        puts = await self._parts(upload, now) if upload.part_sha256 else [self._whole(upload, now)]
        return Granted(upload.key, puts, now + policy.url_lifetime)

    async def complete_upload(self, owner: bytes, media_id: bytes) -> None:
        """Make one object of the parts. Raises MediaUnknown, MediaIncomplete."""
        upload = await self._store.find(media_id, self._clock.now())
        if upload is None or upload.owner != owner:
            raise MediaUnknown("no upload of yours")
        if upload.is_complete:
            return
        tags = await self._objects.parts(upload) if upload.multipart_id else {}
        if len(tags) < len(upload.part_sha256):
            raise MediaIncomplete("parts are missing")
        await self._objects.complete(upload, tags)
        await self._store.complete(media_id)

    async def create_download(self, caller: bytes, media_id: bytes) -> tuple[str, datetime]:
        """A URL of the file, and its end. Raises MediaUnknown, RateLimited."""
        self._allowance.take(caller)
        now, lifetime = self._clock.now(), self._policy.url_lifetime
        upload = await self._store.find(media_id, now)
        if upload is None or not upload.is_complete:
            raise MediaUnknown("there is no such file")
        if self._edge is not None:
            url = self._edge.presign(upload.key, now=now, lifetime=lifetime)
        else:
            url = self._bucket.presign(
                "GET", upload.key, now=now, lifetime=lifetime, query=_AS_BYTES
            )
        return url, now + lifetime

    async def _parts(self, upload: Upload, now: datetime) -> list[Put]:
        if upload.is_complete:
            return []
        multipart_id, there = upload.multipart_id, set[int]()
        if multipart_id is None:
            multipart_id = await self._objects.begin_parts(upload.key)
            if not await self._store.begin_parts(upload.media_id, multipart_id):
                raise MediaIncomplete("another call began it just now")
        else:
            there = set(await self._objects.parts(upload))
        return [
            self._put(
                upload,
                sha256,
                *upload.part(number),
                now=now,
                query={"partNumber": str(number), "uploadId": multipart_id},
            )
            for number, sha256 in enumerate(upload.part_sha256, 1)
            if number not in there
        ]

    def _whole(self, upload: Upload, now: datetime) -> Put:
        return self._put(upload, upload.sha256, 0, upload.size, now=now)

    def _put(
        self,
        upload: Upload,
        sha256: bytes,
        offset: int,
        size: int,
        *,
        now: datetime,
        query: Mapping[str, str] | None = None,
    ) -> Put:
        headers = {
            "content-length": str(size),
            "x-amz-checksum-sha256": base64.b64encode(sha256).decode(),
        }
        lifetime = self._policy.url_lifetime
        url = self._bucket.presign(
            "PUT", upload.key, now=now, lifetime=lifetime, headers=headers, query=query
        )
        return Put(url, headers, offset, size)


def _until_tomorrow(now: datetime) -> timedelta:
    return timedelta(days=1) - timedelta(hours=now.hour, minutes=now.minute, seconds=now.second)
