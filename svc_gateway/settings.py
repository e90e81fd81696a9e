"""Every knob of svc_gateway."""

from datetime import timedelta
from typing import Annotated, Self

from annotated_types import Ge, Gt
from pydantic import AfterValidator, PositiveInt, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from mesh.keys import KeySetFile
from mesh.limits import read_overrides
from mesh.redis import RedisSettings
from mesh.service import ServiceSettings
from mesh.tls import ListenerSettings
from svc_gateway.limits import DEFAULTS, Networks
from svc_gateway.window import KIB, MOST_BODY_BYTES

Span = Annotated[timedelta, Gt(timedelta(0))]
Bytes = Annotated[int, Ge(4 * MOST_BODY_BYTES)]


def _limits(value: str) -> str:
    _, complaints = read_overrides(value.encode(), DEFAULTS)
    if complaints:
        raise ValueError("; ".join(complaints))
    return value


class Settings(RedisSettings, ServiceSettings):
    """What an operator may set."""

    model_config = SettingsConfigDict(env_prefix="WHIMBREL_GATEWAY_")

    listen: str = "127.0.0.1:50051"
    """Address on which devices connect; port 0 takes a free one."""
    reuse_port: bool = False
    """Share the port with other gateways of this machine."""
    client_tls: ListenerSettings = ListenerSettings()
    """What devices are shown; none: plaintext, for a balancer that ends their TLS."""

    token_keys: KeySetFile
    """File with the public keys that verify devices' tokens."""

    max_sessions: PositiveInt = 10_000
    """Most streams at once; one more is refused, OVERLOADED."""
    max_unacked: Annotated[int, Ge(1)] = 256
    """Most deliveries that a device may leave unacknowledged."""
    max_unacked_bytes: Bytes = 1024 * KIB
    """Most bytes of them."""
    unacked_budget: Bytes = 256 * 1024 * KIB
    """Most unacknowledged bytes of all sessions; above it they get one delivery at a time."""
    max_outstanding_sends: PositiveInt = 500
    """Most sends of a session that wait for their answer."""
    max_outstanding_bytes: Bytes = 1024 * KIB
    """Most bytes of them."""
    unanswered_budget: Bytes = 64 * 1024 * KIB
    """Most bytes of requests that wait for the message service; above it, sends are refused."""

    limits: Annotated[str, AfterValidator(_limits)] = ""
    """Limits that differ here, as JSON: {"sends": {"burst": 5000, "per_second": 20}}."""
    trusted_proxies: Networks = ()
    """Networks whose x-forwarded-for is believed, as a JSON list of CIDRs; default none."""

    max_watches: PositiveInt = 200
    """Most chats whose people a session may watch."""
    most_watches: PositiveInt = 100_000
    """Most of all sessions together; above it, watches are refused."""
    heartbeat: Span = timedelta(seconds=30)
    """How often the presence service is told who is connected here; it waits for two."""

    slow_consumer: Span = timedelta(seconds=30)
    """How long a device may neither read nor acknowledge while something waits for it."""
    open_within: Span = timedelta(seconds=10)
    """How long the message service may take to open a session."""
    answer_within: Span = timedelta(seconds=4.5)
    """How long it may take to answer before another instance is asked."""
    token_grace: timedelta = timedelta(seconds=60)
    """How long after its token's expiry a stream lives on."""

    registry_ttl: Span = timedelta(seconds=90)
    """How long a route lives in Redis unless it is renewed."""
    registry_renewal: Span = timedelta(seconds=30)
    """How often routes are renewed."""
    canary_interval: Span = timedelta(seconds=0.5)
    """How often this instance looks whether Redis still knows it."""
    heads_interval: Span = timedelta(seconds=20)
    """How often at most the heads of all sessions are compared; at least 1.4 times as seldom."""
    heads_interval_blind: Span = timedelta(seconds=2)
    """How often while Redis cannot be reached, so that most pushes find no way."""
    heads_spread: timedelta = timedelta(seconds=1)
    """Over how long an extra comparison is spread, so that gateways do not come at once."""

    drain: timedelta = timedelta(seconds=20)
    """How long taking the instance down may last."""
    drain_spread: timedelta = timedelta(seconds=5)
    """Over how long devices are sent away."""

    shed_floor: PositiveInt = 1000
    """Sessions that the instance keeps, however few others have; above it, and more than a fifth
    above the mean of all instances, it sends what is above the mean to the others."""
    shed_interval: Span = timedelta(seconds=5)
    """How often it compares; it sends some away after the third time, 5 % at most each time."""

    failpoint: str = ""
    """For fault tests: `name:count` kills the process at the count-th pass of a point."""

    @field_validator("client_tls")
    @classmethod
    def _client_tls_is_good(cls, client_tls: ListenerSettings) -> ListenerSettings:
        problems = client_tls.problems()
        if problems:
            raise ValueError("; ".join(problems))
        return client_tls

    @model_validator(mode="after")
    def _devices_are_sent_away_in_time(self) -> Self:
        if self.drain_spread > self.drain:
            raise ValueError("drain_spread is longer than drain: devices would be cut off")
        return self
