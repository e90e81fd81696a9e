"""A channel with very many subscribers: what a post touches does not know of them."""

from datetime import timedelta

import pytest

from mesh.ids import random_id, slot_of
from mesh.postgres import Limits, acquired, open_pool

_PATIENCE = timedelta(seconds=10)
_LIMITS = Limits(statement=timedelta(minutes=5))

# Subscriptions of accounts of nobody: only their number counts here.
_CROWD = """
INSERT INTO subscription
SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), $1, 0, '' FROM generate_series(1, $2::integer) AS n
"""
_TOUCHED = """
SELECT relname FROM pg_stat_xact_user_tables
WHERE coalesce(seq_scan, 0) + coalesce(idx_scan, 0) + n_tup_ins + n_tup_upd + n_tup_del > 0
"""
_WRITTEN = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables"


@pytest.mark.parametrize("subscribers", [100_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
async def test_a_post_touches_no_subscription(town, shard_dsns, subscribers) -> None:
    ann, *_ = town.people
    channel = await town.create(ann)
    await town.post(ann, channel)
    id_ = channel.channel_id
    for name in town.shards.names:
        half = subscribers // len(town.shards.names)
        async with (
            open_pool(shard_dsns[name], size=1, application_name="test", limits=_LIMITS) as pool,
            acquired(pool, within=_PATIENCE) as connection,
        ):
            await connection.execute(_CROWD, id_, half)

    dsn = shard_dsns[town.shards.shard_of(slot_of(id_))]
    # A session of its own, which has counted nothing else.
    async with (
        open_pool(dsn, size=1, application_name="test") as pool,
        acquired(pool, within=_PATIENCE) as connection,
        connection.transaction(),
    ):
        row = await connection.fetchrow(
            "SELECT * FROM create_post($1, $2, $3, $4, 1, 'words', 10000)",
            *(slot_of(id_), id_, ann.user_id, random_id()),
        )
        touched = {one["relname"] for one in await connection.fetch(_TOUCHED)}
        written = await connection.fetchval(_WRITTEN)

    assert (row["outcome"], row["seq"]) == (1, 2)
    assert "subscription" not in touched
    assert touched <= {"slot", "channel", "channel_admin", "channel_post"}
    assert written == 2  # the post, and the channel's head
    assert await town.seqs(ann, channel) == [1, 2]
