"""Every knob of svc_presence."""

from datetime import timedelta
from typing import Annotated

from annotated_types import Gt
from pydantic import PositiveInt
from pydantic_settings import SettingsConfigDict

from mesh.redis import RedisSettings
from mesh.service import ServiceSettings

Span = Annotated[timedelta, Gt(timedelta(0))]


class Settings(RedisSettings, ServiceSettings):
    """What an operator may set."""

    model_config = SettingsConfigDict(env_prefix="WHIMBREL_PRESENCE_")

    listen: str = "127.0.0.1:50071"
    """Address and port of the internal listener; port 0 takes a free one."""
    offline_after: Span = timedelta(seconds=65)
    """How long after the last heartbeat somebody is offline: two that are missed, and their way."""
    keep_last_seen: Span = timedelta(days=30)
    """How long it is known when somebody was last seen."""
    audience_fresh: Span = timedelta(seconds=30)
    """How long the message service's word on who may see whom is good; then it is asked again."""
    most_watches: PositiveInt = 1_000_000
    """Most chats that are watched at once, each by one person at one gateway; more are ignored."""

    drain: timedelta = timedelta(seconds=5)
    """What open calls get to end when the instance is taken down."""
