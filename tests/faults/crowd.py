"""Groups that are written to and changed while a test breaks the mesh, and what they must have got.

A send is accepted only at the revision it names, and every change answers with the revision it
made. So what the clients were told says, without a look at the mesh's own tables, who is to have
each message: whoever was a member by the changes up to its revision. Nobody reads a queue here: at
the end the queues hold all that was ever delivered.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import asyncpg
import grpc

from mesh.errors import failure_of
from mesh.ids import random_id, slot_of
from tests.e2e.device import Device
from tests.e2e.groups import a_group_send, change_group, make_group
from tests.e2e.people import Account
from tests.faults.town import eventually
from whimbrel.group.v1 import change_pb2, group_pb2
from whimbrel.message.v1 import send_pb2
from whimbrel_cli.bench.running import bulk_people
from whimbrel_cli.stack.mesh import Mesh

_SETTLED_SECONDS = 60.0
_ANSWER_SECONDS = 30.0
_SHORTEST_PAUSE = 0.02

_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_QUEUES = """
SELECT q.user_id, q.seq, q.ciphertext FROM device_queue q
JOIN slot s ON s.slot = slot_of(q.user_id) AND s.state = 1
WHERE q.conversation_id = $1 ORDER BY q.user_id, q.device_id, q.pos
"""
_ENTRIES = "SELECT count(*) FROM group_outbox o JOIN slot s ON s.slot = o.slot AND s.state = 1"

Queue = list[tuple[int, bytes]]  # seq and body, in the order of pos


@dataclass
class Crowd:
    """One group: its people, what was accepted at which revision, and how it was changed."""

    mesh: Mesh
    owner: Account
    sender: Account
    others: list[bytes]
    chance: random.Random
    group: group_pb2.Group
    members: dict[int, frozenset[bytes]] = field(default_factory=dict)  # by revision
    accepted: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # seq: revision, body
    refusals: list[send_pb2.Rejected] = field(default_factory=list)

    async def write(self, count: int) -> None:
        """Send so many messages, one after the other, each until it is accepted."""
        async with Device(self.sender, self.mesh.gateway_addresses[0]) as device:
            await device.hello()
            for _ in range(count):
                await self._write_one(device)

    async def _write_one(self, device: Device) -> None:
        body = random_id()
        send = a_group_send(self.group, body)
        while True:
            answer = await _answered(device, send)
            if isinstance(answer, send_pb2.Accepted):
                self.accepted[answer.seq] = send.revision, body
                return
            if isinstance(answer, send_pb2.GroupChanged):
                self.group.revision = send.revision = answer.revision
                self.group.device_epoch = send.device_epoch = answer.device_epoch
            else:
                assert answer.HasField("retry_after"), answer
                self.refusals.append(answer)
                pause = answer.retry_after.ToTimedelta().total_seconds()
                await asyncio.sleep(max(pause, _SHORTEST_PAUSE))

    async def churn(self, is_over: Callable[[], bool], *, every: float) -> int:
        """Add and remove people until it is over; how many changes there were."""
        made = 0
        while not is_over():
            began = time.monotonic()
            made += await self._change_one()
            await asyncio.sleep(max(0.0, every - (time.monotonic() - began)))
        return made

    async def _change_one(self) -> bool:
        present = self.members[max(self.members)]
        user_id = self.chance.choice(self.others)
        if user_id in present:
            change = change_pb2.Change(remove=change_pb2.RemoveMember(user_id=user_id))
        else:
            change = change_pb2.Change(add=change_pb2.AddMembers(user_ids=[user_id]))
        for gateway in self.mesh.gateway_addresses * 20:
            try:
                revision = await change_group(gateway, self.owner, self.group.group_id, change)
            except grpc.aio.AioRpcError as error:
                if failure_of(error).code not in _AWAY:
                    raise
                await asyncio.sleep(_SHORTEST_PAUSE)
            else:
                self.members[revision] = present ^ {user_id}
                return True
        raise TimeoutError("the group could not be changed")

    def expected(self) -> dict[bytes, Queue]:
        """What each person's queue must hold of the group."""
        queues: dict[bytes, Queue] = defaultdict(list)
        for seq, (revision, body) in sorted(self.accepted.items()):
            for user_id in self.members[revision] - {self.sender.user_id}:
                queues[user_id].append((seq, body))
        return dict(queues)


async def a_crowd(mesh: Mesh, *, members: int, strangers: int, seed: int) -> Crowd:
    """A group of so many, and people who are none of its members yet.

    Its owner and its sender are on the first shard.
    """
    people = await bulk_people(mesh, members + strangers)
    people.sort(key=lambda person: slot_of(person.user_id))
    owner, sender = (Account("", None, p.user_id, 1, p.token) for p in people[:2])  # type: ignore[arg-type]
    others = [person.user_id for person in people[2:]]
    inside = [sender.user_id, *others[: members - 2]]
    group = await make_group(mesh.gateway_addresses[0], owner, inside)
    first = frozenset([owner.user_id, *inside])
    return Crowd(mesh, owner, sender, others, random.Random(seed), group, {1: first})


async def check(mesh: Mesh, *crowds: Crowd) -> None:
    """Wait until the outboxes are empty, then compare every queue with what it must hold."""

    async def is_at_rest() -> bool:
        return await waiting_on(mesh, *mesh.shards) == 0

    await eventually(is_at_rest, within=_SETTLED_SECONDS)
    for crowd in crowds:
        assert sorted(crowd.accepted) == list(range(1, len(crowd.accepted) + 1))
        assert await queues_of(crowd, *mesh.shards) == crowd.expected()


async def queues_of(crowd: Crowd, *shards: str) -> dict[bytes, Queue]:
    """What queues on these shards hold of the group."""
    queues: dict[bytes, Queue] = defaultdict(list)
    for user_id, seq, body in await on_shards(
        crowd.mesh, _QUEUES, crowd.group.group_id, shards=shards
    ):
        queues[user_id].append((seq, body))
    return dict(queues)


async def on_shards(
    mesh: Mesh, query: str, *arguments: object, shards: Sequence[str]
) -> list[asyncpg.Record]:
    """What these shards answer."""
    rows: list[asyncpg.Record] = []
    for name in shards:
        connection = await asyncpg.connect(mesh.shards[name])
        try:
            rows += await connection.fetch(query, *arguments)
        finally:
            await connection.close()
    return rows


async def waiting_on(mesh: Mesh, *shards: str) -> int:
    """How many messages wait in the outboxes of these shards."""
    return sum([row[0] for row in await on_shards(mesh, _ENTRIES, shards=shards)])


async def _answered(device: Device, send: send_pb2.Send) -> object:
    """Say the send, and wait for the answer to this saying of it."""
    before = len(_answers(device, send))
    await device.send(send)
    await device.until(lambda: len(_answers(device, send)) > before, _ANSWER_SECONDS)
    return _answers(device, send)[-1]


def _answers(device: Device, send: send_pb2.Send) -> list[object]:
    kinds = ("accepted", "rejected", "group_changed")
    answers = [getattr(e, k) for e in device.heard for k in kinds if e.HasField(k)]
    return [one for one in answers if one.client_message_id == send.client_message_id]
