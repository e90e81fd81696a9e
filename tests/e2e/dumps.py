"""Everything that the stores of a mesh hold, written into files that can be searched."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
from aiokafka import AIOKafkaConsumer

from mesh.redis import open_redis
from svc_message.queue.kafka import client_options
from svc_message.queue.model import EVENTS_TOPIC, JOBS_TOPIC
from svc_message.queue.settings import KafkaSettings
from tests.svc_media.store import bucket_of, signed
from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.wheels import postgres_install

_WITHIN = 20


async def log_all_of_redis(mesh: Mesh) -> None:
    """From now on Redis writes each change to a file, uncompressed."""
    async with open_redis(mesh.stack.redis_url) as redis:
        await redis.config_set("rdbcompression", "no")
        await redis.config_set("appendonly", "yes")


async def dump_redis(mesh: Mesh) -> None:
    """All keys and values, into the data of the mesh."""
    async with open_redis(mesh.stack.redis_url) as redis:
        await redis.execute_command("SAVE")


async def dump_postgres(mesh: Mesh, into: Path) -> None:
    """Every schema of every database, roles and functions too, as SQL."""
    command = postgres_install()[1] / "bin" / "pg_dumpall"
    [dsn] = mesh.stack.postgres_dsns
    environment = {**os.environ, "PGPASSWORD": unquote(urlsplit(dsn).password or "")}
    process = await asyncio.create_subprocess_exec(
        command, "--no-password", "--file", into, "--dbname", dsn, env=environment
    )
    async with asyncio.timeout(_WITHIN):
        assert await process.wait() == 0


async def dump_objects(mesh: Mesh, folder: Path) -> list[bytes]:
    """Every object of the bucket, and its name."""
    bucket, contents = bucket_of(mesh.stack.s3_url), []
    async with httpx.AsyncClient(trust_env=False) as http:
        listed = await http.get(signed(bucket, "GET", "", query={"list-type": "2"}))
        for name in re.findall(r"<Key>([^<]+)</Key>", listed.raise_for_status().text):
            answer = await http.get(signed(bucket, "GET", name))
            contents.append(answer.raise_for_status().content)
            (folder / name).write_bytes(contents[-1])
    return contents


async def dump_kafka(mesh: Mesh, into: Path, *, until: Callable[[bytes], bool]) -> None:
    """All that the broker has, keys and values, until this is among it."""
    assert mesh.stack.kafka is not None
    options = client_options(KafkaSettings(bootstrap=mesh.stack.kafka.address))
    consumer = AIOKafkaConsumer(EVENTS_TOPIC, JOBS_TOPIC, **options, auto_offset_reset="earliest")
    async with asyncio.timeout(_WITHIN), consumer:
        held = b""
        while not until(held):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                held += b"".join((one.key or b"") + (one.value or b"") for one in records)
    into.write_bytes(held)


def postgres_files(mesh: Mesh) -> list[Path]:
    """The cluster's own files, also of rows that are deleted; they may lie elsewhere."""
    homes = [home for home, _ in cluster.homes_kept_for(mesh.data)] or [mesh.data / "postgres"]
    return [path for home in homes for path in (home / "cluster").rglob("*") if path.is_file()]
