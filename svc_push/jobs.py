"""Which wake-ups are outstanding, and the jobs that hand them to the providers: all of it in Redis.

A device has at most one outstanding wake-up: until the epoch of its latest session, or the position
that it has acknowledged, is greater, another one of the same urgency changes nothing. A job is an
entry of a stream that a consumer group reads; one that a dead instance had is claimed by another.
Jobs for later wait in a sorted set.

Redis may be flushed: then devices that still have something waiting are told of again.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mesh.errors import Unavailable
from mesh.redis import Argument, Redis, RedisError, Script
from svc_push.model import Device

_GROUP = "workers"
_MILLISECOND = timedelta(milliseconds=1)
_NO_GROUP = "NOGROUP"
_GROUP_IS_THERE = "BUSYGROUP"

# A device's hash: `epoch`, `acked` and `urgent` of what is outstanding (urgent -1: nothing), `job`,
# the number that its only valid job carries, `tries` of that job, `rung`, when it was rung last.

# KEYS: device, jobs, later. ARGV: member, epoch, acked, urgent, ms to keep, ms between quiet ones.
_WAKE = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'epoch', 'acked', 'urgent', 'rung')
local epoch, acked, urgent = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local at_epoch, at_acked = tonumber(known[1] or -1), tonumber(known[2] or -1)
if at_epoch > epoch or (at_epoch == epoch and at_acked > acked) then
  return 0
end
if at_epoch == epoch and at_acked == acked and tonumber(known[3] or -1) >= urgent then
  return 0
end
local job = redis.call('HINCRBY', KEYS[1], 'job', 1)
redis.call('HSET', KEYS[1], 'epoch', epoch, 'acked', acked, 'urgent', urgent, 'tries', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local due = tonumber(known[4] or 0) + tonumber(ARGV[6])
if urgent == 1 or due <= now then
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('XADD', KEYS[2], '*', 'device', ARGV[1], 'job', job)
else
  redis.call('ZADD', KEYS[3], due, ARGV[1])
end
return 1
""")
# KEYS: device, jobs, later. ARGV: member, epoch.
_CONNECTED = Script("""
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) < tonumber(ARGV[2]) then
  redis.call('HINCRBY', KEYS[1], 'job', 1)
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'acked', -1, 'urgent', -1)
  redis.call('ZREM', KEYS[3], ARGV[1])
end
return 1
""")
# KEYS: device, jobs, later. ARGV: member.
_FORGET = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HINCRBY', KEYS[1], 'job', 1)
  redis.call('HDEL', KEYS[1], 'epoch', 'acked', 'urgent')
  redis.call('ZREM', KEYS[3], ARGV[1])
end
return 1
""")
# KEYS: jobs, later. ARGV: what a device's key begins with, most of them.
_DUE = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], 0, now, 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do
  redis.call('ZREM', KEYS[2], member)
  local job = redis.call('HGET', ARGV[1] .. member, 'job')
  if job then
    redis.call('XADD', KEYS[1], '*', 'device', member, 'job', job)
  end
end
return #due
""")
# KEYS: device, jobs, later. ARGV: group, entry, job, rung (1 or 0), ms until the next try or -1,
# tries to count, member. Ends the entry; what became of the job counts only if it is still valid.
_END = Script("""
redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[2], ARGV[2])
if redis.call('HGET', KEYS[1], 'job') ~= ARGV[3] then
  return 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], 'rung', now, 'tries', 0)
elseif tonumber(ARGV[5]) >= 0 then
  redis.call('HINCRBY', KEYS[1], 'tries', ARGV[6])
  redis.call('ZADD', KEYS[3], now + ARGV[5], ARGV[7])
end
return 1
""")


class JobsUnavailable(Unavailable):
    """Redis cannot be reached."""


@dataclass(frozen=True, slots=True)
class Job:
    """A wake-up to be handed to a provider now."""

    entry: bytes  # of the stream
    device: Device
    number: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Something waits for a device that has no session."""

    device: Device
    epoch: int
    acked_pos: int
    is_urgent: bool


@dataclass(frozen=True, slots=True)
class Connected:
    """A device has opened a session."""

    device: Device
    epoch: int


@dataclass(frozen=True, slots=True)
class State:
    """What is known of an outstanding wake-up."""

    is_urgent: bool
    tries: int


class Jobs:
    """The outstanding wake-ups of all devices. Every call raises JobsUnavailable."""

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str,
        consumer: str,
        keep: timedelta,
        quiet: timedelta,
        on_health: Callable[[bool], None] = lambda _is_well: None,
    ) -> None:
        """Wire it.

        `keep`: how long a wake-up is outstanding; `quiet`: least time between quiet ones;
        `on_health` hears whether Redis answers.
        """
        self._redis = redis
        self._base = f"{prefix}{{push}}:"
        self._jobs, self._later = f"{self._base}jobs", f"{self._base}later"
        self._consumer = consumer
        self._on_health = on_health
        self._keep = keep // _MILLISECOND
        self._quiet = quiet // _MILLISECOND

    async def wake(self, wakes: Sequence[Wake]) -> None:
        """Make jobs of those that are not outstanding already."""
        spans = (self._keep, self._quiet)
        await self._run_many(
            _WAKE,
            [(one.device, [one.epoch, one.acked_pos, int(one.is_urgent), *spans]) for one in wakes],
        )

    async def connected(self, news: Sequence[Connected]) -> None:
        """End what was outstanding before these sessions."""
        await self._run_many(_CONNECTED, [(one.device, [one.epoch]) for one in news])

    async def forget(self, devices: Sequence[Device]) -> None:
        """End what is outstanding for the devices: the next word of them begins anew."""
        await self._run_many(_FORGET, [(device, []) for device in devices])

    async def state(self, job: Job) -> State | None:
        """What is outstanding; None: the job is over."""
        with self._needing_redis():
            number, urgent, tries = await self._redis.hmget(
                self._key(job.device), ["job", "urgent", "tries"]
            )
        if number is None or int(number) != job.number or int(urgent or -1) < 0:
            return None
        return State(is_urgent=urgent == b"1", tries=int(tries or 0))

    async def take(self, most: int, *, wait: timedelta) -> list[Job]:
        """The next jobs, up to so many; none if there are none for so long."""
        with self._needing_redis():
            try:
                read: Any = await self._redis.xreadgroup(
                    _GROUP,
                    self._consumer,
                    {self._jobs: ">"},
                    count=most,
                    block=wait // _MILLISECOND,
                )
            except RedisError as error:
                if _NO_GROUP not in str(error):
                    raise
                await self._make_group()
                return []
        return [job for _, entries in read or [] for job in map(_job, entries)]

    async def claim(self, most: int, *, idle: timedelta) -> list[Job]:
        """Jobs that some instance took so long ago without ending them: it must be dead."""
        with self._needing_redis():
            try:
                _, entries, *_ = await self._redis.xautoclaim(
                    self._jobs, _GROUP, self._consumer, idle // _MILLISECOND, count=most
                )
            except RedisError as error:
                if _NO_GROUP not in str(error):
                    raise
                return []
        return [_job(entry) for entry in entries if entry[1]]

    async def due(self, most: int) -> int:
        """Make jobs of those that wait no longer; returns how many."""
        with self._needing_redis():
            found: int = await _DUE.run(
                self._redis,
                keys=[self._jobs, self._later],
                args=[f"{self._base}device:", most],
            )
        return found

    async def rung(self, job: Job) -> None:
        """The provider has taken it: it is outstanding until the device connects."""
        await self._end(job, is_rung=True)

    async def again(self, job: Job, after: timedelta) -> None:
        """It was tried: try again after that time."""
        await self._end(job, after=after // _MILLISECOND, tries=1)

    async def wait(self, job: Job, after: timedelta) -> None:
        """It was not its turn: look again after that time."""
        await self._end(job, after=after // _MILLISECOND)

    async def end(self, job: Job) -> None:
        """Nothing more can be done; it stays outstanding, so that it is not begun again at once."""
        await self._end(job)

    async def leave(self) -> None:
        """Take this instance out of the group if it has left nothing undone."""
        with self._needing_redis():
            pending = await self._redis.xpending_range(
                self._jobs, _GROUP, "-", "+", 1, consumername=self._consumer
            )
            if not pending:
                await self._redis.xgroup_delconsumer(self._jobs, _GROUP, self._consumer)

    async def _end(
        self, job: Job, *, is_rung: bool = False, after: int = -1, tries: int = 0
    ) -> None:
        args: list[Argument] = [
            *(_GROUP, job.entry, job.number, int(is_rung), after, tries, str(job.device)),
        ]
        with self._needing_redis():
            await _END.run(self._redis, keys=self._keys(job.device), args=args)

    async def _make_group(self) -> None:
        try:
            # From the beginning: what was put there before the group was lost counts, too.
            await self._redis.xgroup_create(self._jobs, _GROUP, id="0", mkstream=True)
        except RedisError as error:
            if _GROUP_IS_THERE not in str(error):
                raise

    async def _run_many(
        self, script: Script, calls: Sequence[tuple[Device, Sequence[Argument]]]
    ) -> None:
        with self._needing_redis():
            results = await script.run_many(
                self._redis,
                [(self._keys(device), [str(device), *args]) for device, args in calls],
            )
            for result in results:
                if isinstance(result, Exception):
                    raise result

    @contextlib.contextmanager
    def _needing_redis(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError):
            self._on_health(False)
            raise JobsUnavailable(
                "Redis cannot be reached", metadata={"dependency": "redis"}
            ) from None
        self._on_health(True)

    def _keys(self, device: Device) -> list[Argument]:
        return [self._key(device), self._jobs, self._later]

    def _key(self, device: Device) -> str:
        return f"{self._base}device:{device}"


def _job(entry: tuple[bytes, dict[bytes, bytes]]) -> Job:
    fields = entry[1]
    return Job(entry[0], Device.parse(fields[b"device"].decode()), int(fields[b"job"]))
