"""The few calls that the service itself makes of the object store; none carries a file's bytes."""

import base64
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from datetime import timedelta
from xml.sax.saxutils import escape

import httpx

from mesh.clock import Clock
from mesh.errors import Unavailable
from svc_media.dependencies import OnHealth, silent
from svc_media.model import MediaIncomplete, MediaUnknown, Upload
from svc_media.signing import Bucket

_LIFETIME = timedelta(minutes=1)
_LIFECYCLE = """\
<LifecycleConfiguration><Rule><ID>second-net</ID><Status>Enabled</Status>\
<Filter><Prefix></Prefix></Filter><Expiration><Days>{days}</Days></Expiration>\
<AbortIncompleteMultipartUpload><DaysAfterInitiation>2</DaysAfterInitiation>\
</AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"""


class ObjectStoreUnavailable(Unavailable):
    """The object store cannot be reached, or answers nonsense."""


class ObjectStore:
    """The bucket. Raises ObjectStoreUnavailable."""

    def __init__(
        self,
        bucket: Bucket,
        http: httpx.AsyncClient,
        clock: Clock,
        on_health: OnHealth = silent,
    ) -> None:
        self._bucket = bucket
        self._http = http
        self._clock = clock
        self._on_health = on_health

    async def make_bucket(self, *, keep: timedelta) -> None:
        """Make the bucket unless it is there, and let it remove by itself what is older."""
        if (await self._ask("HEAD", "", also=(403, 404))).status_code != httpx.codes.OK:
            await self._ask("PUT", "", also=(409,))
        await self._ask(
            "PUT", "", query={"lifecycle": ""}, content=_LIFECYCLE.format(days=keep.days)
        )

    async def begin_parts(self, key: str) -> str:
        """The store's name for an upload in parts."""
        answer = await self._ask(
            "POST",
            key,
            query={"uploads": ""},
            headers={
                "content-type": "application/octet-stream",
                "x-amz-checksum-algorithm": "SHA256",
            },
        )
        return _texts(answer, "UploadId")[0]

    async def parts(self, upload: Upload) -> dict[int, str]:
        """The tags of the parts that are there, by number."""
        query = {"uploadId": upload.multipart_id or ""}
        answer = await self._ask("GET", upload.key, query=query, also=(404,))
        if answer.status_code != httpx.codes.OK:
            raise MediaUnknown("the upload is over")
        numbers = map(int, _texts(answer, "PartNumber"))
        sizes = map(int, _texts(answer, "Size"))
        parts = zip(numbers, sizes, _texts(answer, "ETag"), strict=True)
        return {number: tag for number, size, tag in parts if size == upload.part(number)[1]}

    async def complete(self, upload: Upload, tags: Mapping[int, str]) -> None:
        """Make one object of the parts. Raises MediaIncomplete."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tags[number])}</ETag>"
            f"<ChecksumSHA256>{base64.b64encode(sha256).decode()}</ChecksumSHA256></Part>"
            for number, sha256 in enumerate(upload.part_sha256, 1)
        )
        answer = await self._ask(
            "POST",
            upload.key,
            query={"uploadId": upload.multipart_id or ""},
            content=f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>",
            also=(400, 404),
        )
        # The store may say 200 before it knows, and the truth in the body.
        if answer.status_code != httpx.codes.OK or b"<Error>" in answer.content:
            raise MediaIncomplete("the store does not take the parts")

    async def remove(self, upload: Upload) -> None:
        """Remove the object and what was begun of it; harmless when it is gone."""
        if upload.multipart_id:
            await self._ask(
                "DELETE", upload.key, query={"uploadId": upload.multipart_id}, also=(404,)
            )
        await self._ask("DELETE", upload.key, also=(404,))

    async def _ask(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: str = "",
        also: tuple[int, ...] = (),
    ) -> httpx.Response:
        """The answer, which is a success or has one of the `also` codes."""
        url = self._bucket.presign(
            method, key, now=self._clock.now(), lifetime=_LIFETIME, query=query, headers=headers
        )
        try:
            answer = await self._http.request(method, url, content=content, headers=headers)
        except httpx.HTTPError as error:
            self._on_health("object-store", is_well=False)
            # Its text has the URL, which is a secret.
            raise ObjectStoreUnavailable(
                f"the object store cannot be reached: {_why(error)}"
            ) from None
        self._on_health(
            "object-store", is_well=answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR
        )
        if not (answer.is_success or answer.status_code in also):
            raise ObjectStoreUnavailable(f"the object store answered {answer.status_code}")
        return answer


def _why(error: httpx.HTTPError) -> str:
    """What is wrong with its certificate, or else of which kind the error is."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _texts(answer: httpx.Response, name: str) -> list[str]:
    """What stands in the elements of this name, in order."""
    try:
        root = ET.fromstring(answer.content)  # noqa: S314  the store is ours
    except ET.ParseError:
        raise ObjectStoreUnavailable("the object store does not answer in XML") from None
    return [one.text or "" for one in root.iter() if one.tag.rpartition("}")[2] == name]
