"""Presence in Redis: hashes by bucket, a field a person, each with a time to live of its own.

A field holds whether the person was there, and when: `1:1763991000`. Whatever is not repeated is
gone by itself; nothing sweeps. (Measured against scores that are swept, and against a key a person:
docs/decisions/2026-11-24-presence.md.)
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from mesh.redis import Argument, Redis, RedisError
from svc_presence.presence import Seen

# Few, so that a batch of heartbeats is few commands; enough for a cluster to share them out.
_BUCKETS = 16


class Unreachable(Exception):
    """Redis did not answer, or not in time."""


class RedisPresence:
    """What was last heard of people. Each call is one round trip, and may raise Unreachable."""

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str,
        keep: timedelta,
        on_reachable: Callable[[bool], None] = lambda _is_reachable: None,
    ) -> None:
        self._redis = redis
        self._on_reachable = on_reachable
        self._prefix = prefix
        self._keep = int(keep.total_seconds())

    async def keep(self, heard: Mapping[bytes, Seen]) -> None:
        """Replace what is known of these people."""
        by_bucket: defaultdict[int, list[bytes]] = defaultdict(list)
        for user_id, seen in heard.items():
            by_bucket[user_id[-1] % _BUCKETS] += (user_id, _encoded(seen))
        await self._run(
            ("HSETEX", self._key(bucket), "EX", self._keep, "FIELDS", len(pairs) // 2, *pairs)
            for bucket, pairs in by_bucket.items()
        )

    async def last(self, user_ids: Sequence[bytes]) -> dict[bytes, Seen]:
        """What is known of those of whom something is."""
        by_bucket: defaultdict[int, list[bytes]] = defaultdict(list)
        for user_id in user_ids:
            by_bucket[user_id[-1] % _BUCKETS].append(user_id)
        answers = await self._run(
            ("HMGET", self._key(bucket), *ids) for bucket, ids in by_bucket.items()
        )
        return {
            user_id: _decoded(value)
            for ids, values in zip(by_bucket.values(), answers, strict=True)
            for user_id, value in zip(ids, values, strict=True)
            if value is not None
        }

    async def _run(self, commands: Iterable[tuple[Argument, ...]]) -> list[Any]:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    _ = pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._on_reachable(False)
            raise Unreachable from error
        self._on_reachable(True)
        return answers

    def _key(self, bucket: int) -> str:
        return f"{self._prefix}presence:{bucket}"


def _encoded(seen: Seen) -> bytes:
    return b"%d:%d" % (seen.is_there, seen.at)


def _decoded(value: bytes) -> Seen:
    is_there, _, at = value.partition(b":")
    return Seen(int(at), is_there=is_there == b"1")
