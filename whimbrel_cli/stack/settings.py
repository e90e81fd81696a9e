"""The knobs of the embedded stack."""

from pathlib import Path

from pydantic import Field, PositiveInt, SecretStr
from pydantic_settings import SettingsConfigDict

from mesh.settings import Settings
from whimbrel_cli.stack.cluster import REACHABLE


class StackSettings(Settings):
    """Where the servers are: ours on free ports, ours on given ports, or someone else's."""

    model_config = SettingsConfigDict(env_prefix="WHIMBREL_STACK_")

    postgres_dsn: SecretStr | None = None
    """An existing Postgres to use in place of an own one; its user makes the shards' databases."""
    redis_url: SecretStr | None = None
    """An existing Redis or Valkey to use in place of an own one."""
    etcd_endpoint: str | None = None
    """host:port of an existing etcd to use in place of an own one."""
    kafka_bootstrap: str | None = None
    """host:port of an existing Kafka to use in place of an own broker; how to enter it is said by
    WHIMBREL_MESSAGE_KAFKA__…"""
    s3_url: SecretStr | None = None
    """An existing bucket to use in place of an own SeaweedFS, with its keys:
    https://ACCESS:SECRET@host/bucket?region=eu-central-1"""
    postgres_clusters: PositiveInt = 1
    """Own Postgres servers; the shards' databases are dealt out to them in turn."""
    postgres_port: int | None = Field(default=None, gt=0, lt=65536)
    """The first own Postgres's port; a free one if not set. The next ones take the next ports."""
    postgres_reachable: Path = REACHABLE
    """Where root's own Postgres servers keep their files: a directory that `nobody` can reach."""
    redis_port: int | None = Field(default=None, gt=0, lt=65536)
    """The own Valkey's port; a free one if not set."""
    etcd_port: int | None = Field(default=None, gt=0, lt=65536)
    """The own etcd's port; a free one if not set."""
    kafka_port: int | None = Field(default=None, gt=0, lt=65536)
    """The own broker's port; a free one if not set."""
    s3_port: int | None = Field(default=None, gt=0, lt=65536)
    """The own SeaweedFS's port; a free one if not set."""


# All of them ours, on free ports, whatever the environment says.
OWN_SERVERS = StackSettings.model_construct()
