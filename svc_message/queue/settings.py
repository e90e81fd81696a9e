"""The knobs of domain events, and of a Kafka that carries them."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import FilePath, PositiveInt, SecretStr, model_validator

from mesh.settings import Section


class EventSettings(Section):
    """Whether domain events are written, who reads them, and how long they are kept."""

    is_on: bool = False
    """Write domain events, for internal teams."""
    readers: frozenset[str] = frozenset()
    """The services that may read them by EventService, as a JSON list."""
    keep: timedelta = timedelta(days=1)
    """How long an event waits for the consumer groups that have not read it; then it is dropped,
    with an alarm. A group that did not ask for so long is forgotten."""
    most: PositiveInt = 1_000_000
    """How many events of one shard are kept; the oldest are dropped, with an alarm."""
    keep_read: timedelta = timedelta(minutes=10)
    """How long an event stays that every group has read: a broker that has lost its data gets them
    again."""


class KafkaSettings(Section):
    """A Kafka that domain events go to, and perhaps the fan-out's jobs; none by default."""

    bootstrap: str = ""
    """host:port of brokers, by comma; empty: there is no Kafka."""
    carries_jobs: bool = False
    """Whether a group's message is fanned out by whichever instance Kafka tells of it, and not by
    the one that accepted it."""
    partitions: PositiveInt = 16
    """Of each topic that is made: at most so many consumers of one group at work."""
    replicas: PositiveInt = 3
    """Of each topic that is made."""
    is_idempotent: bool = True
    """Let the broker drop what a producer repeats."""
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the brokers are entered."""
    ca_file: FilePath | None = None
    """With SSL: whom to trust, as PEM; the system's authorities if not set."""
    certificate_file: FilePath | None = None
    """With SSL: our certificate, as PEM, for brokers that ask for one."""
    key_file: FilePath | None = None
    """With SSL: its key."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """With SASL: how the password is proved."""
    username: str = ""
    """With SASL."""
    password: SecretStr = SecretStr("")
    """With SASL."""

    @model_validator(mode="after")
    def _can_be_entered(self) -> Self:
        if self.security.startswith("SASL") and not (self.username and self.password):
            raise ValueError("security=SASL_… needs username and password")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


def session_variables(settings: EventSettings) -> dict[str, str]:
    """What each session of the service says to the triggers of sql/0018_events.sql."""
    return {"whimbrel.events": "on" if settings.is_on else "off"}
