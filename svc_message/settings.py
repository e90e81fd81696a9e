"""Every knob of svc_message."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import FilePath, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from mesh.keys import SigningKeyFile
from mesh.redis import RedisSettings
from mesh.service import ServiceSettings
from mesh.settings import Holds
from mesh.settings import Settings as MeshSettings
from mesh.store_tls import PLAINTEXT, StoreTls, demand_good
from svc_message.queue.settings import EventSettings, KafkaSettings
from svc_message.shards.dsns import read_shards

_CONFIG = SettingsConfigDict(env_prefix="WHIMBREL_MESSAGE_")


class StoreSettings(MeshSettings):
    """What the commands need that only touch the shards."""

    model_config = _CONFIG

    shards: Annotated[FilePath, Holds(read_shards)]
    """A mounted file, {"shard": "dsn"}, in the order in which the slots are first shared out.
    It holds passwords and is never printed."""
    direct_shards: Annotated[FilePath | None, Holds(read_shards)] = None
    """The same without a pooler, where the DSNs in `shards` are PgBouncer's: for `migrate` and
    `move-slot`."""
    postgres_tls: StoreTls = PLAINTEXT
    """TLS with every shard whose DSN has no sslmode; as sslmode=verify-full."""
    events: EventSettings = EventSettings()
    """Domain events."""

    _postgres_tls_is_good = field_validator("postgres_tls")(demand_good)

    @property
    def dsns(self) -> dict[str, str]:
        """Where the shards are, by name, through a pooler if there is one."""
        return read_shards(self.shards, self.postgres_tls)

    @property
    def own_dsns(self) -> dict[str, str]:
        """Where the shards themselves are."""
        return read_shards(self.direct_shards or self.shards, self.postgres_tls)


class Settings(StoreSettings, RedisSettings, ServiceSettings):
    """Every knob of svc_message."""

    model_config = _CONFIG

    token_key: SigningKeyFile
    """Key set that signs the access tokens of devices."""
    listen: str = "127.0.0.1:50061"
    """Address and port of the internal listener."""
    lanes_per_shard: PositiveInt = 1
    """Batches in flight at once on one shard, for each kind of request. A call costs Postgres more
    than an item does, so that few and full batches are cheaper."""
    connections_per_shard: PositiveInt = 16
    """Most connections to one shard."""
    device_lists_fresh: timedelta = timedelta(seconds=1)
    """How long a list of linked devices may be used to check sends after it was read. What is sent
    to a registration that was replaced meanwhile is not delivered."""
    first_contacts_a_day: PositiveInt = 50
    """How many people an account may write to for the first time within 24 hours. Who wrote to it
    before, and who is in a group with it, does not count."""
    reports_a_day: PositiveInt = 10
    """How many reports an account may make within 24 hours."""
    keep_reports: timedelta = timedelta(days=90)
    """How long a report is kept."""
    relay_sweep: timedelta = timedelta(seconds=1)
    """How often overdue outbox entries are looked for."""
    most_group_members: PositiveInt = 5000
    """How many members a group may have."""
    most_group_entries: PositiveInt = 100_000
    """Messages of groups that may wait, on one shard, for shards that are down; then groups refuse
    more."""
    keep_messages: timedelta = timedelta(days=30)
    """How long an undelivered message waits in a device's queue."""
    sweep: timedelta = timedelta(minutes=10)
    """How often old rows are looked for."""
    push_after: timedelta = timedelta(seconds=1)
    """How long a device that has no session may take to come by itself before it is woken."""
    push_sweep: timedelta = timedelta(seconds=30)
    """How often all devices are looked at for something that waits, whatever was told of them."""
    registration: Literal["open", "code"] = "open"
    """What an account needs: `open`, a handle; `code`, also a number and the code sent to it."""
    codes_file: Path | None = None
    """For development: codes are written here instead of being sent."""
    codes_webhook: SecretStr = SecretStr("")
    """URL that codes are posted to, to be sent by text message; https unless on this machine."""
    codes_webhook_secret: SecretStr = SecretStr("")
    """What those posts are signed with."""
    unlink_idle_after: timedelta = timedelta(days=45)
    """How long a linked device, other than the primary, may stay away."""
    token_lifetime: timedelta = timedelta(minutes=10)
    """How long an access token is good."""
    drain: timedelta = timedelta(seconds=20)
    """What open calls get to end when the instance is taken down."""
    kafka: KafkaSettings = KafkaSettings()
    """A Kafka that they go to."""
    failpoint: str = ""
    """For fault tests only: `name:count`, where the process kills itself."""

    @model_validator(mode="after")
    def _codes_can_be_sent(self) -> Self:
        if self.codes_webhook and not self.codes_webhook_secret:
            raise ValueError("codes_webhook needs codes_webhook_secret")
        if self.registration == "code" and not (self.codes_webhook or self.codes_file):
            raise ValueError("registration=code needs codes_webhook or codes_file")
        return self
