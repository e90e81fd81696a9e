"""A small town of people who write to each other through a mesh while a test breaks it."""

import asyncio
import contextlib
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

import asyncpg
import grpc

from tests.e2e.people import Account, register
from tests.faults.checker import LONGEST_WAIT, is_quiet, violations
from tests.faults.history import Answered, History, Queue, Received, Rest
from tests.faults.phone import Phone
from whimbrel.content.v1 import content_pb2
from whimbrel_cli.stack.mesh import Mesh

WITHIN = 30.0
_POLL_SECONDS = 0.05
_GOODBYE_SECONDS = 5

_QUEUES = """
SELECT d.user_id, d.head_pos, d.acked_pos,
    (SELECT count(*) FROM device_queue q WHERE q.user_id = d.user_id AND q.device_id = d.device_id)
FROM device d JOIN slot s ON s.slot = slot_of(d.user_id) AND s.state = 1
WHERE d.user_id = ANY ($1)
"""
_ENTRIES = """
SELECT (SELECT count(*) FROM copy_outbox o JOIN slot s ON s.slot = o.slot AND s.state = 1)
    + (SELECT count(*) FROM receipt_outbox o JOIN slot s ON s.slot = o.slot AND s.state = 1)
"""


class Town:
    """The people, what they saw, and how to wait for them."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        self.mesh = mesh
        self.history = History()
        self.people: list[Phone] = []
        self.chance = random.Random(seed)
        self._news = asyncio.Event()
        self._written = 0
        self._online: dict[str, asyncio.Task[None]] = {}

    async def move_in(self, *, window: int) -> Phone:
        """One more person, offline."""
        number, gateways = len(self.people), self.mesh.gateway_addresses
        first = number % len(gateways)
        person = Phone(
            f"p{number}",
            await self._registered(gateways[first:] + gateways[:first]),
            [*gateways[first:], *gateways[:first]],
            self.history,
            chance=random.Random(self.chance.random()),
            on_event=self._news.set,
            window=window,
        )
        self.people.append(person)
        return person

    async def _registered(self, gateways: list[str]) -> Account:
        """An account made through the first gateway that answers, as a client would."""
        for gateway in gateways:
            try:
                return await register(gateway)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
        raise TimeoutError("no gateway answers")

    def comes_online(self, person: Phone) -> None:
        """The person's phone connects, and comes back whenever its stream ends."""
        self._online[person.name] = asyncio.create_task(person.run(), name=person.name)

    async def goes_offline(self, person: Phone) -> None:
        """The person's phone half-closes its stream and stays away."""
        person.close()
        life = self._online.pop(person.name)
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await life
        except TimeoutError:  # the stream is stuck with what a test has broken
            await asyncio.gather(life, return_exceptions=True)

    async def all_go_offline(self) -> None:
        online = [person for person in self.people if person.name in self._online]
        await asyncio.gather(*(self.goes_offline(person) for person in online))

    def write(self, count: int) -> None:
        """Let everybody write to everybody, so many messages in all."""
        for _ in range(count):
            sender, recipient = self.chance.sample(self.people, 2)
            self.write_one(sender, recipient)

    def write_one(self, sender: Phone, recipient: Phone) -> None:
        self._written += 1
        text = f"{sender.name} to {recipient.name}, number {self._written}"
        sender.write(recipient.user_id, content(text))

    @property
    def accepted(self) -> int:
        """How many sends are answered."""
        return len({answered.client_id for answered in self.history.all(Answered)})

    async def has_accepted(self, count: int, *, within: float = WITHIN) -> None:
        """Wait until so many sends are answered."""
        await self._until(lambda: self.accepted >= count, within, f"{count} accepted")

    async def has_received(self, person: Phone, count: int, *, within: float = WITHIN) -> None:
        """Wait until so many messages have come to the person."""

        def is_so() -> bool:
            received = (r.message_id for r in self.history.all(Received) if r.who == person.name)
            return len({*received}) >= count

        await self._until(is_so, within, f"{count} received by {person.name}")

    async def settled(self, *, within: float = WITHIN) -> None:
        """Wait until all is answered, delivered and known, and the shards are at rest."""
        deadline = asyncio.get_running_loop().time() + within
        await self._until(self._is_quiet, within, "quiet")
        try:
            async with asyncio.timeout_at(deadline):
                await eventually(self._is_at_rest)
        except TimeoutError:
            raise TimeoutError(f"not at rest in {within} s: {await self.rest()}") from None

    async def lives_for(self, seconds: float) -> None:
        """Let a fault last: what has to happen meanwhile sets no event that a test could see."""
        await asyncio.sleep(seconds)

    async def rest(self) -> Rest:
        """What the shards hold of these people."""
        names = {person.user_id: person.name for person in self.people}
        queues: dict[str, Queue] = {}
        entries = 0
        for dsn in self.mesh.shards.values():
            connection = await asyncpg.connect(dsn)
            try:
                for user_id, *numbers in await connection.fetch(_QUEUES, list(names)):
                    queues[names[user_id]] = Queue(*numbers)
                entries += await connection.fetchval(_ENTRIES)
            finally:
                await connection.close()
        return Rest(queues, entries)

    async def check(
        self, *, longest_wait: float = LONGEST_WAIT, may_be_refused: Sequence[str] = ()
    ) -> None:
        """Fail with every violation of the contract, and what proves it."""
        found = violations(
            self.history,
            await self.rest(),
            longest_wait=longest_wait,
            may_be_refused=may_be_refused,
        )
        assert not found, "\n".join(map(str, found[:20]))

    async def _until(self, condition: Callable[[], bool], within: float, what: str) -> None:
        try:
            async with asyncio.timeout(within):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            unanswered = {person.name: person.unanswered for person in self.people}
            found = violations(self.history)[:5]
            text = "\n".join(map(str, found))
            raise TimeoutError(
                f"not {what} in {within} s; unanswered: {unanswered}\n{text}"
            ) from None

    def _is_quiet(self) -> bool:
        return not any(person.unanswered for person in self.people) and is_quiet(self.history)

    async def _is_at_rest(self) -> bool:
        rest = await self.rest()
        return not rest.outbox_entries and all(
            not queue.rows and queue.acked_pos == queue.head_pos for queue in rest.queues.values()
        )


def content(text: str) -> bytes:
    """A message as clients encode it."""
    return content_pb2.Content(text=content_pb2.Text(body=text)).SerializeToString()


@contextlib.asynccontextmanager
async def a_town(
    mesh: Mesh, *, people: int = 6, window: int = 4, seed: int | None = None
) -> AsyncIterator[Town]:
    """People who are online for as long as the block lasts.

    The seed is printed; WHIMBREL_TEST_SEED sets it, to have the same people say the same again.
    """
    if seed is None:
        seed = int(os.environ.get("WHIMBREL_TEST_SEED") or secrets.randbits(32))
    print(f"seed {seed}")
    town = Town(mesh, seed)
    for _ in range(people):
        await town.move_in(window=window)
        town.comes_online(town.people[-1])
    try:
        yield town
    finally:
        await town.all_go_offline()


async def eventually(
    condition: Callable[[], object], *, within: float = WITHIN, every: float = _POLL_SECONDS
) -> None:
    """Poll until the condition, or coroutine function, says yes; for what sets no event."""
    async with asyncio.timeout(within):
        while True:
            answer = condition()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(every)
