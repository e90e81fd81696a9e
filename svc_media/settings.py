"""Every knob of svc_media."""

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import (
    FilePath,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from mesh.postgres import DatabaseSettings
from mesh.service import ServiceSettings
from mesh.store_tls import files_problems
from svc_media.signing import Bucket, Credentials, Edge

_CONFIG = SettingsConfigDict(env_prefix="WHIMBREL_MEDIA_")


class StoreSettings(DatabaseSettings):
    """What preparing the stores needs."""

    model_config = _CONFIG

    s3_endpoint: str
    """Scheme, host and port of a store that speaks S3, such as https://s3.eu-central-1.amazonaws.com."""
    s3_public_endpoint: str = ""
    """The same as devices reach it; empty: they reach it as this service does."""
    s3_ca: FilePath | None = None
    """Authorities, PEM, that certify the store as this service reaches it, instead of the usual."""
    s3_region: str = "us-east-1"
    """The bucket's region."""
    s3_bucket: str
    """The bucket's name; private, and nothing else is in it."""
    s3_access_key: SecretStr
    """Who signs: may read, write, list and remove in the bucket, and set its lifecycle."""
    s3_secret_key: SecretStr
    """What it signs with."""
    s3_in_path: bool = False
    """Whether the bucket's name stands in the path instead of the host."""
    longest_kept: timedelta = timedelta(days=60)
    """How old an object gets at most, whatever refers to it. A day later the bucket's own lifecycle
    removes what a sweep missed."""

    @field_validator("s3_ca")
    @classmethod
    def _s3_ca_is_used(cls, ca: Path | None, info: ValidationInfo) -> Path | None:
        if ca and not info.data.get("s3_endpoint", "https://").startswith("https://"):
            raise ValueError("s3_endpoint is not https://")
        if problems := files_problems(ca, None, None):
            raise ValueError("; ".join(problems))
        return ca

    @property
    def bucket(self) -> Bucket:
        """The bucket as this service reaches it."""
        return self._bucket_at(self.s3_endpoint)

    @property
    def public_bucket(self) -> Bucket:
        """The bucket as devices reach it."""
        return self._bucket_at(self.s3_public_endpoint or self.s3_endpoint)

    def _bucket_at(self, endpoint: str) -> Bucket:
        return Bucket(
            endpoint,
            self.s3_bucket,
            Credentials(
                self.s3_access_key.get_secret_value(), self.s3_secret_key.get_secret_value()
            ),
            region=self.s3_region,
            in_path=self.s3_in_path,
        )


class Settings(StoreSettings, ServiceSettings):
    """Every knob of svc_media."""

    model_config = _CONFIG

    listen: str = "127.0.0.1:50064"
    """Address and port of the internal listener; port 0 takes a free one."""
    connections: PositiveInt = 8
    """Most connections to the database."""
    cdn_address: str = ""
    """Scheme, host and path of a CDN that devices fetch from; empty: from the bucket itself."""
    cdn_key_id: str = ""
    """Which key the CDN is to check with."""
    cdn_key: SecretStr = SecretStr("")
    """The key, as 64 hexadecimal digits."""
    url_lifetime: timedelta = timedelta(minutes=5)
    """How long a URL is good."""
    orphans: timedelta = timedelta(hours=24)
    """How long an object is kept that no accepted message refers to."""
    quota: PositiveInt = 10 * 1024**3
    """Bytes that an account may upload in a day, by UTC."""
    grants_at_once: PositiveInt = 240
    """How many grants an account gets at once."""
    grant_each: timedelta = timedelta(seconds=1)
    """How often it gets one after that."""
    sweep: timedelta = timedelta(minutes=10)
    """How often objects are looked for that are over."""

    @property
    def edge(self) -> Edge | None:
        """The CDN, if there is one."""
        if not self.cdn_address:
            return None
        key = bytes.fromhex(self.cdn_key.get_secret_value())
        return Edge(self.cdn_address.rstrip("/"), self.cdn_key_id, key)

    @model_validator(mode="after")
    def _cdn_has_a_key(self) -> Self:
        try:
            key = bytes.fromhex(self.cdn_key.get_secret_value())
        except ValueError:
            raise ValueError("cdn_key is not hexadecimal") from None
        if self.cdn_address and (len(key) != 32 or not self.cdn_key_id):
            raise ValueError("cdn_address needs cdn_key_id and cdn_key, of 32 bytes")
        return self
