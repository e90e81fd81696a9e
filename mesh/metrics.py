"""The one list of what the mesh measures; labels are small closed sets, never a person."""

from typing import NamedTuple


class Metric(NamedTuple):
    """What is measured, in which unit (UCUM), and what it tells."""

    name: str
    unit: str
    meaning: str


CALLS = Metric("whimbrel.calls", "s", "Duration of calls, by method and code")

CERTIFICATES_REFUSED = Metric(
    "whimbrel.certificates.refused", "1", "New certificate files that were not good and not taken"
)
CERTIFICATE_EXPIRY = Metric(
    "whimbrel.certificate.expiry", "s", "Time until the certificate of the instance expires"
)

SESSIONS = Metric("whimbrel.sessions", "1", "Device streams open now")
SESSION_ENDS = Metric("whimbrel.session.ends", "1", "Device streams ended, by reason")
SESSIONS_SHED = Metric(
    "whimbrel.sessions.shed", "1", "Sessions sent to other gateways, which have fewer"
)
DELIVERIES = Metric("whimbrel.deliveries", "1", "Envelopes written to devices")
FRAMES = Metric("whimbrel.frames", "1", "Frames written to devices")
IGNORED = Metric("whimbrel.ignored", "1", "Events of devices that were ignored, by kind")
REPEATS = Metric("whimbrel.repeats", "1", "Requests repeated to another instance")
UNACKED_BYTES = Metric("whimbrel.unacked.bytes", "By", "Delivered bytes that await their ack")
SENT_ACCEPTED = Metric(
    "whimbrel.sent.accepted", "s", "From a send's arrival at the gateway to its first tick"
)
ACCEPTED_DELIVERED = Metric(
    "whimbrel.accepted.delivered",
    "s",
    "From accepting to the recipient's durable ack; stream: online if it was open then, or offline",
)
DELIVERED_READ = Metric(
    "whimbrel.delivered.read", "s", "From the ack to the read, where one stream saw both"
)

ACCEPTED = Metric("whimbrel.accepted", "1", "Sends accepted")
REFUSED = Metric("whimbrel.refused", "1", "Sends refused, by reason")
BATCHES = Metric("whimbrel.batch.duration", "s", "Duration of store batches, by kind and shard")
BATCH_ITEMS = Metric("whimbrel.batch.items", "1", "Items of store batches, by kind")
OUTBOX_PENDING = Metric(
    "whimbrel.outbox.pending", "1", "Entries that wait for their relay, by shard"
)
OUTBOX_AGE = Metric("whimbrel.outbox.age", "s", "Age of the oldest entry's message, by shard")
INBOX_LAG = Metric(
    "whimbrel.inbox.lag", "1", "Rows that wait in device queues, by shard; as Postgres estimates"
)
WAITING = Metric("whimbrel.waiting", "1", "Items that wait for a batch, by kind")
SHARD_UP = Metric(
    "whimbrel.shard.up", "1", "1 if the shard was reached last time, else 0; by shard"
)
GATEWAYS = Metric("whimbrel.gateways", "1", "Gateways that are attached to this message instance")
COPIES = Metric("whimbrel.copies", "1", "Copies written into device queues")
DROPPED_BODIES = Metric("whimbrel.dropped_bodies", "1", "Live pushes sent as doorbells only")
EVENTS_DROPPED = Metric(
    "whimbrel.events.dropped", "1", "Events removed that a group had yet to read, by shard"
)
EXPIRED = Metric("whimbrel.expired", "1", "Queue rows removed because they were too old")

WATCHES = Metric("whimbrel.watches", "1", "Open chats whose people are watched")

PREKEY_STOCK = Metric(
    "whimbrel.prekeys.stock",
    "1",
    "One-time keys in store, by kind and shard; as Postgres estimates",
)
PREKEYS_TAKEN = Metric("whimbrel.prekeys.taken", "1", "Keys given out to open sessions, by kind")
PREKEY_LIMITS = Metric(
    "whimbrel.prekeys.limited", "1", "Fetches of keys that met a limit, by whose"
)

PUSHES = Metric("whimbrel.pushes", "1", "Wake-ups sent to providers, by provider and answer")
PUSH_FETCHED = Metric(
    "whimbrel.push.fetched", "s", "From a wake-up that was told to the device's next stream"
)

LIMIT_REFUSED = Metric("whimbrel.limit.refused", "1", "Things refused by a limit, by limit")
LIMIT_LEASES = Metric("whimbrel.limit.leases", "1", "Lots of tokens taken in Redis, by limit")
LIMIT_FAILED_OPEN = Metric(
    "whimbrel.limit.failed_open", "1", "Lots given without asking Redis, which was away, by limit"
)
LIMIT_OVERRIDES_IGNORED = Metric(
    "whimbrel.limit.overrides.ignored", "1", "Overrides of limits that were wrong and are ignored"
)
