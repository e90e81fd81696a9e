"""What waits on a shard and what is in stock, as its metrics tell it."""

from collections.abc import Callable

from mesh.ids import random_id
from mesh.metrics import INBOX_LAG, PREKEY_STOCK, Metric
from mesh.telemetry import OFF, Labels
from svc_message.stock import Stock

_QUEUED = """
INSERT INTO device_queue (user_id, device_id, pos, seq, sent_prev, accepted_at, sender_device_id,
    type, conversation_id, peer_id, sender_id, message_id, ciphertext)
SELECT $1, 1, n, n, 0, clock_timestamp(), 1, 1, $1, $1, $1, $1, 'x' FROM generate_series(1, 40) AS n
"""
_EC = "INSERT INTO one_time_prekey SELECT $1, 1, n, n, 'key' FROM generate_series(1, 30) AS n"
_KEM = (
    "INSERT INTO one_time_kem_prekey SELECT $1, 1, n, n, 'k', 's' FROM generate_series(1, 20) AS n"
)


class Gauges(type(OFF)):
    """Telemetry that reads its gauges when it is asked."""

    def __init__(self) -> None:
        self._reads: dict[tuple[str, frozenset], Callable[[], float]] = {}

    def gauge(
        self, metric: Metric, read: Callable[[], float], labels: Labels | None = None
    ) -> None:
        self._reads[metric.name, frozenset((labels or {}).items())] = read

    def value(self, metric: Metric, **labels: str) -> float:
        return self._reads[metric.name, frozenset(labels.items())]()


async def test_rows_in_queues_and_prekeys_move_the_numbers_of_their_shard_alone(shards) -> None:
    gauges = Gauges()
    stock = Stock({name: shards.pool(name) for name in shards.names}, gauges)
    here, there = shards.names
    pool, user_id = shards.pool(here), random_id()

    async def told() -> list[tuple[float, ...]]:
        await pool.execute("ANALYZE device_queue, one_time_prekey, one_time_kem_prekey")
        await stock.round()
        return [
            (
                gauges.value(INBOX_LAG, shard=shard),
                gauges.value(PREKEY_STOCK, shard=shard, kind="ec"),
                gauges.value(PREKEY_STOCK, shard=shard, kind="kem"),
            )
            for shard in (here, there)
        ]

    for statement in (_QUEUED, _EC, _KEM):
        await pool.execute(statement, user_id)
    full = await told()
    await pool.execute("DELETE FROM device_queue WHERE pos <= 30")
    await pool.execute("DELETE FROM one_time_prekey WHERE place <= 25")
    emptier = await told()

    assert full == [(40, 30, 20), (0, 0, 0)]
    assert emptier == [(10, 5, 20), (0, 0, 0)]
