"""A hand in the shards of a mesh: time there is the shard's own, so rows are made old instead."""

import asyncpg

from whimbrel_cli.stack.mesh import Mesh


async def on_each_shard(mesh: Mesh, statement: str, *args: object) -> list[asyncpg.Record]:
    """What the shards answer, together."""
    rows: list[asyncpg.Record] = []
    for dsn in mesh.shards.values():
        connection = await asyncpg.connect(dsn)
        try:
            rows += await connection.fetch(statement, *args)
        finally:
            await connection.close()
    return rows
