"""A member of a group as raw gRPC: a device that posts to one group and counts what comes of it."""

import asyncio
import os
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from whimbrel.group.v1 import change_pb2, group_pb2, group_pb2_grpc
from whimbrel.message.v1 import envelope_pb2, receipt_pb2, send_pb2
from whimbrel_cli.bench.device import Broken, Device, Sent
from whimbrel_cli.bench.plan import Person

_ADDED_AT_ONCE = 256
_CALL_SECONDS = 30.0


class Member(Device):
    """One member's device. It fails on anything lost, doubled, out of order or refused for good."""

    def __init__(self, person: Person, address: str, *, payload_bytes: int) -> None:
        super().__init__(person, address, payload_bytes=payload_bytes)
        self.received = self.accepted = self.posted = 0
        self.accept_seconds = array("d")
        self.delivered: dict[int, int] = {}  # of own messages: by seq, to how many
        self.on_posted: Callable[[Member], None] = lambda _member: None
        self._group = group_pb2.Group()
        self._body = os.urandom(payload_bytes)
        self._posts: dict[bytes, Sent] = {}
        self._last_seq = 0

    def join(self, group: group_pb2.Group) -> None:
        """Post to this group from now on."""
        self._group = group

    def post(self) -> None:
        """Put the next message into the next frame."""
        self.posted += 1
        send = self._outgoing.events.add().send
        send.client_message_id = os.urandom(16)
        send.group_id = self._group.group_id
        send.revision, send.device_epoch = self._group.revision, self._group.device_epoch
        now = time.monotonic()
        send.first_tried_at.seconds = int(now + self._server_ahead)
        send.shared.type = send_pb2.CIPHERTEXT_TYPE_SENDER_KEY
        send.shared.ciphertext = self._body
        self._posts[send.client_message_id] = Sent(send, now)

    def _on_deliver(self, envelope: envelope_pb2.Envelope) -> None:
        if envelope.pos != self._last_pos + 1 or envelope.seq <= self._last_seq:
            raise Broken(f"{envelope.pos}, {envelope.seq} after {self._last_pos}, {self._last_seq}")
        self._last_pos = self._acks = envelope.pos
        self._last_seq = envelope.seq
        self.received += 1

    def _on_accepted(self, accepted: send_pb2.Accepted) -> None:
        sent = self._posts.pop(accepted.client_message_id)
        self.accepted += 1
        self.accept_seconds.append(time.monotonic() - sent.at)
        self.on_posted(self)

    def _on_rejected(self, rejected: send_pb2.Rejected) -> None:
        if not rejected.HasField("retry_after"):
            raise Broken(f"refused for good: {rejected}")
        self.retries += 1
        wait = rejected.retry_after.ToTimedelta().total_seconds()
        sent = self._posts[rejected.client_message_id]
        asyncio.get_running_loop().call_later(wait, self._repeat, sent)

    def _on_receipt(self, receipt: receipt_pb2.Receipt) -> None:
        if receipt.version <= self._last_version:
            raise Broken(f"receipt {receipt.version} after {self._last_version}")
        self._last_version = receipt.version
        for tally in receipt.tallies:
            self.delivered[tally.seq] = tally.delivered_to


async def make_group(address: str, people: Sequence[Person]) -> group_pb2.Group:
    """A group of all these people; the first one is its owner."""
    owner, *others = people
    metadata = (("authorization", f"Bearer {owner.token}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = group_pb2_grpc.GroupServiceStub(channel)
        request = group_pb2.CreateGroupRequest(creation_id=os.urandom(16), attributes=b"bench")
        made = await stub.CreateGroup(request, metadata=metadata, timeout=_CALL_SECONDS)
        group_id = made.group.group_id
        for start in range(0, len(others), _ADDED_AT_ONCE):
            some = [person.user_id for person in others[start : start + _ADDED_AT_ONCE]]
            change = change_pb2.Change(add=change_pb2.AddMembers(user_ids=some))
            asked = group_pb2.ChangeGroupRequest(group_id=group_id, change=change)
            await stub.ChangeGroup(asked, metadata=metadata, timeout=_CALL_SECONDS)
        got = await stub.GetGroup(
            group_pb2.GetGroupRequest(group_id=group_id), metadata=metadata, timeout=_CALL_SECONDS
        )
    group: group_pb2.Group = got.group
    if group.member_count != len(people):
        raise Broken(f"the group has {group.member_count} members, not {len(people)}")
    return group
