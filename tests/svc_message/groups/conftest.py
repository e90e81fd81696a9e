"""Groups over two migrated shards: made and changed by the rules, written to through the core."""

import asyncio
from dataclasses import dataclass

import pytest

from mesh.caller import Caller
from mesh.clock import SystemClock
from mesh.ids import random_id, slot_of
from mesh.redis import open_redis
from svc_message.groups.groups import Groups
from svc_message.groups.model import Group, Permissions, Profile
from svc_message.groups.sending import read_group_send
from svc_message.groups.store import GroupStore
from svc_message.identity.buckets import Buckets
from svc_message.identity.finding_store import FindingStore
from svc_message.model import Refusal
from svc_message.requests import ReadRequest, ReceiptsRequest
from tests.svc_message.messaging.conftest import core, people  # noqa: F401  fixtures
from whimbrel.message.v1 import send_pb2


@dataclass
class Answer:
    """What a send to a group was answered."""

    first: object
    refusal: Refusal | None
    changes: object

    @property
    def seq(self) -> int:
        assert self.first is not None, self.refusal or self.changes
        return self.first.seq


class World:
    """The core and the rules of groups, as plain calls."""

    def __init__(self, messaging, groups: Groups, shards) -> None:
        self.core, self.groups, self.shards = messaging, groups, shards

    async def create(self, owner, others=(), *, permissions=None) -> Group:
        profile = Profile(b"name", permissions or Permissions())
        return await self.groups.create(caller(owner), random_id(), profile, others, logged=b"")

    async def change(self, actor, group_id, change) -> int:
        return await self.groups.change(caller(actor), group_id, change, logged=b"")

    async def standing(self, group_id) -> tuple[int, int]:
        """The group's revision and device epoch."""
        group = await self.groups._store.read(group_id, [bytes(16)])
        return group.revision, group.device_epoch

    async def send(
        self, sender, group_id, body=b"hello", *, at=None, client_id=None, after=b"", device=1
    ) -> Answer:
        """Send at a (revision, device epoch), or as the group stands."""
        revision, epoch = at or await self.standing(group_id)
        message = send_pb2.Send(
            client_message_id=client_id or random_id(),
            group_id=group_id,
            after=after,
            revision=revision,
            device_epoch=epoch,
            shared=send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_SENDER_KEY, ciphertext=body),
        )
        message.first_tried_at.FromDatetime(SystemClock().now())
        request = read_group_send(message, sender, device, SystemClock().now(), None)
        if isinstance(request, Refusal):
            return Answer(None, request, None)
        answered = asyncio.get_running_loop().create_future()
        self.core.core.groups.accepting.accept(
            request,
            lambda send, first, refusal: answered.set_result(Answer(first, refusal, send.changes)),
        )
        return await answered

    async def quiet(self) -> None:
        """Wait until nothing is left in any outbox."""
        async with asyncio.timeout(20):
            while await self.entries():
                await asyncio.sleep(0.01)
        await self.core.core.drained()

    async def entries(self) -> int:
        return sum(
            [
                await self.shards.pool(name).fetchval(
                    "SELECT (SELECT count(*) FROM group_outbox)"
                    " + (SELECT count(*) FROM receipt_outbox)"
                    " + (SELECT count(*) FROM device_change_outbox)"
                )
                for name in self.shards.names
            ]
        )

    async def bodies(self, user, *, device=1) -> list[bytes]:
        return [bytes(row["ciphertext"]) for row in await self.core.page(user, device=device)]

    async def seqs(self, user, *, device=1) -> list[int]:
        return [row["seq"] for row in await self.core.page(user, device=device)]

    async def read(self, user, group_id, up_to) -> None:
        await self.core.ask(
            ReadRequest, user, conversation_id=group_id, author_id=group_id, up_to_seq=up_to
        )

    async def tallies(self, user) -> dict[int, tuple[int, int]]:
        """Of each of the user's messages to their groups: delivered to, read by."""
        result = await self.core.ask(ReceiptsRequest, user, after_version=0, max_receipts=100)
        return {
            seq: (delivered, read)
            for row in result.rows
            if row["seqs"]
            for seq, delivered, read in zip(
                row["seqs"], row["delivered_to"], row["read_by"], strict=True
            )
        }

    async def link_device(self, user, device, registration=77) -> None:
        pool = self.shards.pool(self.shards.shard_of(slot_of(user)))
        await pool.execute(
            "INSERT INTO device (user_id, device_id, registration_id, public_key)"
            " VALUES ($1, $2, $3, $4)",
            user,
            device,
            registration,
            bytes(32),
        )
        # As linking does when it stores the device's keys.
        await pool.execute(
            "UPDATE device SET registration_id = $3 WHERE user_id = $1 AND device_id = $2",
            user,
            device,
            registration,
        )


def caller(user) -> Caller:
    """The user's primary device."""
    return Caller(user, 1, 1)


@pytest.fixture
async def world(core, shards, redis_url):  # noqa: F811
    """A running core, and the rules over its shards."""
    async with open_redis(redis_url) as redis:
        buckets = Buckets(redis, prefix="test:")
        yield World(
            core,
            Groups(
                GroupStore(shards),
                FindingStore(shards),
                buckets,
                core.core.groups.news,
                most_members=30,
            ),
            shards,
        )
