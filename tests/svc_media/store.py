"""The object store, as tests reach it behind the service's back."""

from datetime import UTC, datetime, timedelta
from typing import Any

from svc_media.settings import StoreSettings
from svc_media.signing import Bucket
from whimbrel_cli.stack.environment import s3_settings

_PREFIX = "WHIMBREL_MEDIA_"


def settings_of(s3_url: str) -> dict[str, str]:
    """What the service's settings are told of the bucket."""
    told = s3_settings(s3_url)
    return {name.removeprefix(_PREFIX).lower(): value for name, value in told.items()}


def bucket_of(s3_url: str) -> Bucket:
    return StoreSettings(database="unused", **settings_of(s3_url)).bucket


def signed(bucket: Bucket, method: str, key: str, **more: Any) -> str:
    """A URL for one request, good for a minute."""
    return bucket.presign(method, key, now=datetime.now(UTC), lifetime=timedelta(minutes=1), **more)
