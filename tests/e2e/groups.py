"""GroupService as people call it, and sends to groups."""

import time
from typing import Any

import grpc

from mesh.ids import random_id
from tests.e2e.people import CALL_SECONDS, Account
from whimbrel.group.v1 import change_pb2, group_pb2, group_pb2_grpc
from whimbrel.message.v1 import send_pb2


async def call(gateway: str, account: Account, method: str, request: Any) -> Any:
    """Call GroupService in the account's name."""
    async with grpc.aio.insecure_channel(gateway) as channel:
        stub = group_pb2_grpc.GroupServiceStub(channel)
        rpc = getattr(stub, method)
        return await rpc(request, metadata=account.metadata, timeout=CALL_SECONDS)


async def make_group(gateway: str, owner: Account, others: list[bytes]) -> group_pb2.Group:
    """A group of the owner and at most 256 others."""
    request = group_pb2.CreateGroupRequest(
        creation_id=random_id(), attributes=b"name", user_ids=others
    )
    response = await call(gateway, owner, "CreateGroup", request)
    group: group_pb2.Group = response.group
    return group


async def change_group(
    gateway: str, actor: Account, group_id: bytes, change: change_pb2.Change
) -> int:
    """Make one change; the group's revision then."""
    request = group_pb2.ChangeGroupRequest(group_id=group_id, change=change)
    response = await call(gateway, actor, "ChangeGroup", request)
    return int(response.revision)


def a_group_send(
    group: Any, body: bytes = b"hi", *, id_: bytes | None = None, tried: float | None = None
) -> send_pb2.Send:
    """A message to a group as it is known: an object with group_id, revision and device_epoch."""
    send = send_pb2.Send(
        client_message_id=id_ or random_id(),
        group_id=group.group_id,
        revision=group.revision,
        device_epoch=group.device_epoch,
        shared=send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_SENDER_KEY, ciphertext=body),
    )
    send.first_tried_at.FromMilliseconds(int((time.time() if tried is None else tried) * 1000))
    return send
