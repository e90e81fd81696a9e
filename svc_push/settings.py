"""Every knob of svc_push."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import FilePath, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict

from mesh.postgres import DatabaseSettings
from mesh.redis import RedisSettings
from mesh.service import ServiceSettings
from mesh.settings import Holds
from svc_push.providers.fcm import ServiceAccount
from svc_push.providers.key_files import check_authorities, load_p256_key
from svc_push.sealing import Seal

_CONFIG = SettingsConfigDict(env_prefix="WHIMBREL_PUSH_")


class StoreSettings(DatabaseSettings):
    """What preparing the store needs."""

    model_config = _CONFIG


class Settings(StoreSettings, RedisSettings, ServiceSettings):
    """Every knob of svc_push."""

    model_config = _CONFIG

    token_keys: Annotated[FilePath, Holds(Seal.load)]
    """Keys that tokens are stored under: {"id": "64 hexadecimal digits", ...}. The first one
    encrypts; what is under another is encrypted anew by the next sweep, after which that may go."""
    listen: str = "127.0.0.1:50063"
    """Address and port of the internal listener."""
    connections: PositiveInt = 8
    """Most connections to the database."""
    apns_key: Annotated[FilePath | None, Holds(load_p256_key)] = None
    """Key of the team for Apple's push service (.p8); without it there is no APNs."""
    apns_key_id: str = ""
    """The key's id."""
    apns_team_id: str = ""
    """The team's id."""
    apns_topic: str = ""
    """The app's bundle id."""
    apns_url: str = "https://api.push.apple.com"
    """Where APNs is; https://api.sandbox.push.apple.com for builds from Xcode."""
    fcm_account: Annotated[FilePath | None, Holds(ServiceAccount.load)] = None
    """JSON key of a service account that may send; without it there is no FCM."""
    fcm_url: str = "https://fcm.googleapis.com"
    """Where FCM is."""
    vapid_key: Annotated[FilePath | None, Holds(load_p256_key)] = None
    """Private key on P-256, PEM, that signs Web Push; without it there is none."""
    vapid_subject: str = ""
    """Whom the operators of push servers may write to: a mailto: or https: URL."""
    web_push_private: bool = False
    """Whether Web Push may lead into private networks; for development."""
    provider_ca: Annotated[FilePath | None, Holds(check_authorities)] = None
    """Authorities, PEM, to trust beside the system's."""
    provider_rate: PositiveFloat = 500.0
    """Most requests a second of this instance to one provider."""
    keep_wake_ups: timedelta = timedelta(days=1)
    """How long a wake-up is tried, by us and by the provider."""
    quiet: timedelta = timedelta(minutes=20)
    """Least time between two wake-ups of a device for messages that are not urgent."""
    claim_after: timedelta = timedelta(seconds=25)
    """When an instance that has not ended a wake-up is taken for dead; more than 15 seconds."""
    keep_tokens: timedelta = timedelta(days=90)
    """How long a token is kept that its device does not register again."""
    sweep: timedelta = timedelta(minutes=10)
    """How often old tokens are looked for."""
    drain: timedelta = timedelta(seconds=15)
    """What open calls get to end when the instance is taken down."""
    failpoint: str = ""
    """For fault tests only: `name:count`, where the process kills itself."""

    @model_validator(mode="after")
    def _providers_are_whole(self) -> Self:
        if self.apns_key and not (self.apns_key_id and self.apns_team_id and self.apns_topic):
            raise ValueError("apns_key needs apns_key_id, apns_team_id and apns_topic")
        if self.vapid_key and not self.vapid_subject.startswith(("mailto:", "https:")):
            raise ValueError("vapid_key needs vapid_subject, a mailto: or https: URL")
        return self
