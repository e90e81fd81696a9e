"""URLs that say by their signature what may be done with one object, and until when.

`Bucket` signs for the store (Signature Version 4, in the query), `Edge` for a CDN before it: an
HMAC over key id, expiry and path. Neither knows whom a URL is for.
"""

import functools
import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "s3"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signs."""

    access_key: str
    secret_key: str = field(repr=False)


class Bucket:
    """One bucket of a store that speaks S3."""

    def __init__(
        self, endpoint: str, name: str, credentials: Credentials, *, region: str, in_path: bool
    ) -> None:
        """`endpoint`: scheme and host of the store; `in_path`: the bucket's name is in the path."""
        split = urlsplit(endpoint)
        self._host = split.netloc if in_path else f"{name}.{split.netloc}"
        self._scheme = split.scheme
        self._root = f"/{name}/" if in_path else "/"
        self._region = region
        self._name = quote(credentials.access_key, safe="")
        self._credentials = credentials
        self._day = ""
        self._kept = ("", "", b"")

    def presign(
        self,
        method: str,
        key: str,
        *,
        now: datetime,
        lifetime: timedelta,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> str:
        """A URL for one request, which must carry `headers` (lower case) exactly so.

        `key` has letters and digits only.
        """
        time = _time_text(int(now.timestamp()))
        scope, quoted, signing_key = self._of_day(time[:8])
        signed = {"host": self._host, **(headers or {})}
        names = sorted(signed)
        # Sorted: capitals come before what a request itself may ask for.
        text = (
            f"X-Amz-Algorithm={_ALGORITHM}&X-Amz-Credential={self._name}%2F{quoted}"
            f"&X-Amz-Date={time}&X-Amz-Expires={int(lifetime.total_seconds())}"
            f"&X-Amz-SignedHeaders={'%3B'.join(names)}{_further(tuple((query or {}).items()))}"
        )
        path = self._root + key
        lines = "".join(f"{name}:{signed[name]}\n" for name in names)
        request = f"{method}\n{path}\n{text}\n{lines}\n{';'.join(names)}\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = _mac(signing_key, f"{_ALGORITHM}\n{time}\n{scope}\n{digest}").hex()
        return f"{self._scheme}://{self._host}{path}?{text}&X-Amz-Signature={signature}"

    def _of_day(self, day: str) -> tuple[str, str, bytes]:
        """The scope of a day's signatures, as it is and in a query, and their key; made once."""
        if self._day != day:
            scope = f"{day}/{self._region}/{_SERVICE}/aws4_request"
            key = f"AWS4{self._credentials.secret_key}".encode()
            for part in (day, self._region, _SERVICE, "aws4_request"):
                key = _mac(key, part)
            self._day, self._kept = day, (scope, quote(scope, safe=""), key)
        return self._kept


class Edge:
    """A CDN that fetches from the bucket, and answers only to what is signed for it."""

    def __init__(self, address: str, key_id: str, key: bytes) -> None:
        """`address`: scheme, host and path before the object's key, without a slash at the end."""
        self._address = address
        self._path = urlsplit(address).path
        self._key_id = key_id
        self._key = key

    def presign(self, key: str, *, now: datetime, lifetime: timedelta) -> str:
        """A URL to fetch one object."""
        expires = int((now + lifetime).timestamp())
        token = edge_token(self._key, self._key_id, expires, f"{self._path}/{key}")
        return f"{self._address}/{key}?kid={quote(self._key_id)}&exp={expires}&sig={token}"


@functools.lru_cache(maxsize=8)
def _time_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


@functools.lru_cache(maxsize=256)
def _further(query: tuple[tuple[str, str], ...]) -> str:
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in query)
    return "".join(f"&{name}={value}" for name, value in pairs)


def edge_token(key: bytes, key_id: str, expires: int, path: str) -> str:
    """What proves a URL to the CDN: base64url of HMAC-SHA-256 over the three, a line each."""
    return urlsafe_b64encode(_mac(key, f"{key_id}\n{expires}\n{path}")).rstrip(b"=").decode()


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
