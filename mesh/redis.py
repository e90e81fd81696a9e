"""A pool of Redis connections that waits instead of failing, and scripts that survive a flush."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any

from pydantic import SecretStr, ValidationInfo, field_validator
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from mesh.settings import Settings
from mesh.store_tls import PLAINTEXT, StoreTls, demand_good

Argument = bytes | str | int

__all__ = ["Argument", "Redis", "RedisError", "RedisSettings", "Script", "open_redis"]


class RedisSettings(Settings):
    """The knobs of a service that uses Redis."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """URL of Redis or Valkey; may hold a password. rediss:// is TLS."""
    redis_prefix: str = "whimbrel:"
    """What every key of this mesh begins with in Redis."""
    redis_tls: StoreTls = PLAINTEXT
    """TLS with Redis; its `ca` is trusted beside the system's authorities."""

    @field_validator("redis_tls")
    @classmethod
    def _redis_tls_is_used(cls, tls: StoreTls, info: ValidationInfo) -> StoreTls:
        url = info.data.get("redis_url")
        if tls != PLAINTEXT and url and not url.get_secret_value().startswith("rediss://"):
            raise ValueError("redis_url is not rediss://")
        return demand_good(tls)


@contextlib.asynccontextmanager
async def open_redis(
    url: str,
    *,
    size: int = 8,
    tls: StoreTls = PLAINTEXT,
    wait: timedelta = timedelta(seconds=1),
    timeout: timedelta = timedelta(milliseconds=500),
    client_name: str = "whimbrel",
) -> AsyncIterator[Redis]:
    """A client over at most `size` connections; values stay bytes. Nothing is connected yet.

    A caller waits up to `wait` for a connection and up to `timeout` for an answer, then gets a
    RedisError: Redis is a hint everywhere, and a late hint is worth nothing.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        **_shown_and_demanded(tls),
        max_connections=size,
        timeout=wait.total_seconds(),
        socket_timeout=timeout.total_seconds(),
        socket_connect_timeout=timeout.total_seconds(),
        socket_keepalive=True,
        # Once, at once: a pooled connection may have died with the server that is back since.
        retry=Retry(NoBackoff(), 1),
        client_name=client_name,
    )
    async with _Redis.from_pool(pool) as redis:
        yield redis


def _shown_and_demanded(tls: StoreTls) -> dict[str, str]:
    """The files in redis-py's words, which reads them for each connection."""
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
    return {name: str(path) for name, path in files.items() if path is not None}


@contextlib.contextmanager
def _cancellable() -> Iterator[None]:
    """Cancel the task after all, if it was cancelled inside and nobody noticed.

    redis-py loses a cancellation that comes while it connects; the task would live on for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except Exception as error:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task and task.cancelling() > before:
        raise asyncio.CancelledError


class _Redis(Redis):
    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with _cancellable():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(  # as redis-py has it
        self,
        transaction: bool = True,  # noqa: FBT001, FBT002
        shard_hint: str | None = None,
    ) -> Pipeline:
        pool, callbacks = self.connection_pool, self.response_callbacks
        return _Pipeline(pool, callbacks, transaction, shard_hint)


class _Pipeline(Pipeline):
    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002
        with _cancellable():
            answers: list[Any] = await super().execute(raise_on_error)
        return answers


class Script:
    """A Lua script, sent by its digest and as text only where the server does not know it."""

    def __init__(self, source: str) -> None:
        self._source = source
        # The digest that EVALSHA names is SHA-1: an address here, no protection.
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, *, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
        """Run it once."""
        try:
            return await redis.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await redis.eval(self._source, len(keys), *keys, *args)

    async def run_many(
        self, redis: Redis, calls: Sequence[tuple[Sequence[Argument], Sequence[Argument]]]
    ) -> list[Any]:
        """Run it for each (keys, args), in one round trip; an error stands in its call's place."""
        if not calls:
            return []
        results = await self._pipelined(redis, calls)
        if any(isinstance(result, NoScriptError) for result in results):
            await redis.script_load(self._source)
            results = await self._pipelined(redis, calls)
        return results

    async def _pipelined(
        self, redis: Redis, calls: Sequence[tuple[Sequence[Argument], Sequence[Argument]]]
    ) -> list[Any]:
        async with redis.pipeline(transaction=False) as pipeline:
            for keys, args in calls:
                _ = pipeline.evalsha(self._digest, len(keys), *keys, *args)
            return await pipeline.execute(raise_on_error=False)
