"""What waits on each shard, counted for the metrics while somebody listens."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from mesh.metrics import INBOX_LAG, OUTBOX_AGE, OUTBOX_PENDING, PREKEY_STOCK
from mesh.postgres import STORE_ERRORS, Pool, fetch
from mesh.telemetry import Telemetry

log = structlog.get_logger(__name__)

STOCK_EVERY = timedelta(seconds=15)
# Outboxes are short, and are counted no further than this; large tables are estimated, which takes
# Postgres no time. A `due` is two seconds after the entry was made.
_MOST = 100_000
_COUNT = f"""
SELECT
    (SELECT count(*) FROM (SELECT FROM copy_outbox LIMIT {_MOST}) AS c)
        + (SELECT count(*) FROM (SELECT FROM receipt_outbox LIMIT {_MOST}) AS r)
        + (SELECT count(*) FROM (SELECT FROM group_outbox LIMIT {_MOST}) AS g) AS pending,
    coalesce(extract(epoch FROM clock_timestamp() - least(
        (SELECT accepted_at FROM copy_outbox ORDER BY entry_id LIMIT 1),
        (SELECT min(accepted_at) FROM (SELECT accepted_at FROM group_outbox LIMIT {_MOST}) AS g)
    )), 0)::float8 AS age,
    (SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'device_queue') AS inbox,
    (SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'one_time_prekey') AS ec,
    (SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'one_time_kem_prekey') AS kem
"""  # noqa: S608  of a number that stands above


class Stock:
    """The latest count of each shard."""

    def __init__(self, pools: Mapping[str, Pool], telemetry: Telemetry) -> None:
        self._pools = pools
        self._counted: dict[str, Any] = {}
        for shard in pools:
            told, read = {"shard": shard}, partial(partial, self._read, shard)
            telemetry.gauge(OUTBOX_PENDING, read("pending"), told)
            telemetry.gauge(OUTBOX_AGE, read("age"), told)
            telemetry.gauge(INBOX_LAG, read("inbox"), told)
            telemetry.gauge(PREKEY_STOCK, read("ec"), {**told, "kind": "ec"})
            telemetry.gauge(PREKEY_STOCK, read("kem"), {**told, "kind": "kem"})

    async def round(self) -> None:
        """Count on each shard; of one that cannot be reached, nothing is known any more."""
        for shard, pool in self._pools.items():
            try:
                [self._counted[shard]] = await fetch(pool, _COUNT)
            except STORE_ERRORS as error:
                self._counted.pop(shard, None)
                log.warning("cannot count", shard=shard, error=type(error).__name__)

    def _read(self, shard: str, column: str) -> float:
        row = self._counted.get(shard)
        return float("nan") if row is None else float(row[column] or 0)
