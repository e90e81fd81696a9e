"""ChannelService as people call it."""

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import Any

import grpc

from mesh.ids import random_id
from tests.e2e.device import Device, reason_of
from tests.e2e.people import CALL_SECONDS, Account
from whimbrel.channel.v1 import channel_pb2, channel_pb2_grpc


@dataclass(slots=True)
class MadeChannel:
    """A channel, with the key by which people subscribe."""

    channel_id: bytes
    link_key: bytes = field(repr=False)


async def call(gateway: str, account: Account, method: str, **fields: Any) -> Any:
    """Call ChannelService in the account's name."""
    async with grpc.aio.insecure_channel(gateway) as channel:
        stub = channel_pb2_grpc.ChannelServiceStub(channel)
        request = getattr(channel_pb2, f"{method}Request")(**fields)
        return await getattr(stub, method)(request, metadata=account.metadata, timeout=CALL_SECONDS)


async def refusal(gateway: str, account: Account, method: str, **fields: Any) -> str:
    """Why the call is refused; empty if it is not."""
    try:
        await call(gateway, account, method, **fields)
    except grpc.aio.AioRpcError as failure:
        return reason_of(failure)
    return ""


async def make_channel(gateway: str, owner: Account) -> MadeChannel:
    """A channel of the owner."""
    link_key = random_id() + random_id()
    answer = await call(
        gateway,
        owner,
        "CreateChannel",
        creation_id=random_id(),
        attributes=b"name",
        link_key_hash=hashlib.sha256(link_key).digest(),
        sealed_key=b"sealed",
    )
    return MadeChannel(answer.channel.channel_id, link_key)


async def subscribe(gateway: str, account: Account, channel: MadeChannel) -> None:
    """Subscribe by the link."""
    fields = {"channel_id": channel.channel_id, "link_key": channel.link_key}
    await call(gateway, account, "Subscribe", **fields)


async def post(
    gateway: str,
    author: Account,
    channel: MadeChannel,
    body: bytes = b"words",
    *,
    post_id: bytes = b"",
    key_version: int = 1,
) -> int:
    """Post; the seq."""
    answer = await call(
        gateway,
        author,
        "CreatePost",
        channel_id=channel.channel_id,
        post_id=post_id or random_id(),
        key_version=key_version,
        ciphertext=body,
    )
    return int(answer.seq)


async def rung(device: Device, gateway: str, author: Account, channel: MadeChannel) -> int:
    """Post until the device hears a post: its gateway learns soon after hello what it follows."""
    for _ in range(50):
        await post(gateway, author, channel)
        with contextlib.suppress(TimeoutError):
            await device.until(lambda: bool(device.all("channel_post")), 0.2)
            return int(device.all("channel_post")[-1].seq)
    raise AssertionError("no post was heard")


async def list_posts(
    gateway: str, account: Account, channel: MadeChannel, after_seq: int = 0, limit: int = 0
) -> channel_pb2.ListPostsResponse:
    """Posts above a seq."""
    fields = {"channel_id": channel.channel_id, "after_seq": after_seq, "limit": limit}
    answer: channel_pb2.ListPostsResponse = await call(gateway, account, "ListPosts", **fields)
    return answer
