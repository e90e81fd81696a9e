"""Takes jobs and hands them to the providers, many at once; a provider's trouble delays its own."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

import structlog

from mesh.backoff import Backoff
from mesh.clock import Clock
from mesh.failpoints import Failpoints
from mesh.metrics import PUSHES
from mesh.tasks import periodically
from mesh.telemetry import Telemetry
from svc_push.jobs import Job, Jobs, JobsUnavailable, State
from svc_push.model import Answer, Delivered, Device, Gone, Later, Provider, Refused, Token
from svc_push.schedule import Gate, next_try
from svc_push.sealing import SealBroken
from svc_push.store import StoreUnavailable, TokenStore

log = structlog.get_logger(__name__)

_AT_ONCE = 128
# So that one provider that hangs leaves places for the others.
_OF_ONE = 64
_WAIT = timedelta(seconds=1)
_DUE_EVERY = timedelta(milliseconds=500)
_DUE_AT_ONCE = 500
# Longer than any provider may take, by far less than what an urgent wake-up has.
_DEAD_AFTER = timedelta(seconds=25)
_MOST_GATES = 1000
_FULL = timedelta(milliseconds=500)


class Rings(Protocol):
    """A provider, as the worker sees it."""

    def gate_of(self, token: Token, /) -> str:
        """The name of what a request depends on, which fails for all alike."""

    async def ring(self, token: Token, *, is_urgent: bool) -> Answer:
        """Send the wake-up once."""


class Worker:
    """Works on jobs until cancelled."""

    def __init__(
        self,
        jobs: Jobs,
        store: TokenStore,
        providers: Mapping[Provider, Rings],
        *,
        per_second: float,
        clock: Clock,
        telemetry: Telemetry,
        failpoints: Failpoints,
        dead_after: timedelta = _DEAD_AFTER,
        chance: random.Random | None = None,
    ) -> None:
        """`per_second`: most requests of this instance to one provider."""
        self._jobs = jobs
        self._store = store
        self._providers = providers
        self._per_second = per_second
        self._clock = clock
        self._pushes = telemetry.counter(PUSHES)
        self._failpoints = failpoints
        self._dead_after = dead_after
        self._claim_every = dead_after.total_seconds() / 5
        self._chance = chance or random.Random()  # noqa: S311  spreads load, hides nothing
        self._gates: dict[str, Gate] = {}  # the one used last is last
        self._ringing: Counter[Provider] = Counter()
        self._is_finishing = False

    async def run(self) -> None:
        """Work until `finish`; what a crash leaves begun is begun again by whoever claims it."""
        async with asyncio.TaskGroup() as tasks:
            due = tasks.create_task(periodically(self._due, _DUE_EVERY, name="due"), name="due")
            await self._take(tasks)
            due.cancel()

    def finish(self) -> None:
        """Take no more; `run` returns when all that was taken is done."""
        self._is_finishing = True

    async def _take(self, tasks: asyncio.TaskGroup) -> None:
        working: set[asyncio.Task[None]] = set()
        backoff, claim_at = Backoff(), 0.0
        while not self._is_finishing:
            if len(working) >= _AT_ONCE:
                await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            most, now = _AT_ONCE - len(working), self._clock.monotonic()
            try:
                if now >= claim_at:
                    found = await self._jobs.claim(most, idle=self._dead_after)
                    claim_at = now + self._claim_every
                else:
                    found = await self._jobs.take(most, wait=_WAIT)
                backoff.reset()
            except JobsUnavailable:
                await self._clock.sleep(backoff.next())
                continue
            for job in found:
                task = tasks.create_task(self._work(job), name=f"ring-{job.entry.decode()}")
                working.add(task)
                task.add_done_callback(working.discard)

    async def _due(self) -> None:
        with contextlib.suppress(JobsUnavailable):
            while await self._jobs.due(_DUE_AT_ONCE) == _DUE_AT_ONCE:
                pass

    async def _work(self, job: Job) -> None:
        try:
            await self._once(job)
        except JobsUnavailable:
            log.warning("Redis went away under a wake-up")  # it is claimed again, or told again
        except Exception:  # the root of this task: the job is claimed again
            log.exception("a wake-up failed")

    async def _once(self, job: Job) -> None:
        state = await self._jobs.state(job)
        if state is None:
            return await self._jobs.end(job)
        try:
            token = await self._store.find(job.device)
        except StoreUnavailable:
            return await self._jobs.again(job, next_try(state.tries, None, self._chance))
        except SealBroken:
            log.exception("a stored token does not open: is its key still in the file?")
            token = None
        provider = self._providers.get(token.provider) if token else None
        if token is None or provider is None:
            return await self._jobs.end(job)
        return await self._ring(job, state, token, provider)

    async def _ring(self, job: Job, state: State, token: Token, provider: Rings) -> None:
        gate = self._gate(provider.gate_of(token))
        wait = _FULL if self._ringing[token.provider] >= _OF_ONE else gate.wait()
        if wait:
            return await self._jobs.wait(job, wait + next_try(0, None, self._chance))
        answer = await self._ask(gate, token, provider, is_urgent=state.is_urgent)
        self._pushes.add(1, {"provider": token.provider.name, "answer": type(answer).__name__})
        if isinstance(answer, Delivered):
            return await self._jobs.rung(job)
        if isinstance(answer, Later):
            pause = next_try(state.tries, answer.after, self._chance)
            return await self._jobs.again(job, pause)
        if isinstance(answer, Refused):
            log.error("a provider refused", provider=token.provider.name, reason=answer.reason)
        elif not await self._remove(job.device, token, answer):
            return await self._jobs.again(job, next_try(state.tries, None, self._chance))
        return await self._jobs.end(job)

    async def _remove(self, device: Device, token: Token, gone: Gone) -> bool:
        """Forget the token, unless it was registered since the provider last knew it."""
        if gone.since is not None and gone.since < token.registered_at:
            return False
        if not await self._store.remove_as_read(device, token):
            return False
        log.info("a device has no token any more", provider=token.provider.name)
        return True

    async def _ask(self, gate: Gate, token: Token, provider: Rings, *, is_urgent: bool) -> Answer:
        self._failpoints.hit("push.before_ring")
        self._ringing[token.provider] += 1
        try:
            answer = await provider.ring(token, is_urgent=is_urgent)
        except BaseException:
            gate.failed(None)
            raise
        finally:
            self._ringing[token.provider] -= 1
        self._failpoints.hit("push.rung")
        self._tell(gate, token.provider, answer)
        self._pushes.add(1, {"provider": token.provider.name, "answer": type(answer).__name__})
        return answer

    def _tell(self, gate: Gate, provider: Provider, answer: Answer) -> None:
        if not isinstance(answer, Later) or answer.is_ours:
            gate.succeeded()
            return
        was_closed = gate.is_closed
        gate.failed(answer.after)
        if gate.is_closed and not was_closed:
            log.warning("a provider fails", provider=provider.name, reason=answer.reason)

    def _gate(self, name: str) -> Gate:
        gate = self._gates.pop(name, None) or Gate(self._per_second, self._clock)
        self._gates[name] = gate
        if len(self._gates) > _MOST_GATES:
            del self._gates[next(iter(self._gates))]
        return gate
