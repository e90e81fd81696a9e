"""A channel through the whole mesh: made, followed, posted to, read."""

from datetime import timedelta

from mesh.ids import random_id
from tests.e2e.channels import (
    call,
    list_posts,
    make_channel,
    post,
    refusal,
    rung,
    subscribe,
)
from tests.e2e.device import Device
from tests.e2e.people import register_all
from whimbrel_cli.stack.mesh import Mesh


async def test_a_post_reaches_whoever_is_online_and_waits_for_the_rest(mesh: Mesh) -> None:
    gateways = mesh.gateway_addresses
    ann, ben, cid, dan = await register_all(gateways[0], 4)
    channel = await make_channel(gateways[0], ann)
    await subscribe(gateways[0], ben, channel)
    await subscribe(gateways[0], dan, channel)

    async with Device(ben, gateways[0]) as bob, Device(cid, gateways[-1]) as carl:
        await bob.hello()
        await carl.hello()
        await subscribe(gateways[0], cid, channel)  # while online, at the other gateway
        await rung(bob, gateways[0], ann, channel)
        seq = await rung(carl, gateways[0], ann, channel)
        await bob.until(lambda: seq in [one.seq for one in bob.all("channel_post")])
        [same] = [one for one in bob.all("channel_post") if one.seq == seq]
        assert (same.channel_id, same.ciphertext) == (channel.channel_id, b"words")

        await call(gateways[0], cid, "Unsubscribe", channel_id=channel.channel_id)
        heard = len(carl.all("channel_post"))
        head = await post(gateways[0], ann, channel)
        await bob.until(lambda: bob.all("channel_post")[-1].seq == head)
        assert len(carl.all("channel_post")) <= heard + 1  # he may have heard the one in between

    async with Device(dan, gateways[0]) as dave:  # was away
        await dave.hello()
        await dave.until(lambda: bool(dave.all("channel_heads")))
        [stands] = dave.all("channel_heads")[0].heads
        assert (stands.channel_id, stands.head_seq) == (channel.channel_id, head)
    page = await list_posts(gateways[0], dan, channel, after_seq=1)
    assert [one.seq for one in page.posts] == list(range(2, head + 1))
    assert (page.oldest_seq, page.head_seq) == (1, head)


async def test_bad_calls_are_refused_with_what_is_allowed(mesh: Mesh) -> None:
    gateway = mesh.gateway_addresses[0]
    ann, eve = await register_all(gateway, 2)
    channel = await make_channel(gateway, ann)
    id_, good = channel.channel_id, random_id()
    create = {"creation_id": good, "link_key_hash": bytes(32)}
    posting = {"channel_id": id_, "post_id": good, "key_version": 1, "ciphertext": b"x"}

    for method, fields in (
        ("CreateChannel", {**create, "creation_id": b"short"}),
        ("CreateChannel", {**create, "link_key_hash": bytes(31)}),
        ("CreateChannel", {**create, "attributes": bytes(4097)}),
        ("CreateChannel", {**create, "sealed_key": bytes(257)}),
        ("CreateChannel", {**create, "retention": timedelta(minutes=59)}),
        ("CreateChannel", {**create, "retention": timedelta(days=91)}),
        ("ChangeChannel", {"channel_id": id_}),
        ("ChangeChannel", {"channel_id": id_, "add_admin": b"nobody"}),
        ("Subscribe", {"channel_id": id_, "link_key": b"guess"}),
        ("CreatePost", {**posting, "ciphertext": b""}),
        ("CreatePost", {**posting, "ciphertext": bytes(64 * 1024 + 1)}),
        ("CreatePost", {**posting, "post_id": b""}),
        ("ListPosts", {"channel_id": id_, "limit": 101}),
        ("GetChannel", {"channel_id": b""}),
    ):
        assert await refusal(gateway, ann, method, **fields) == "FIELD_INVALID", (method, fields)
    for account, method, fields, reason in (
        (ann, "CreatePost", {**posting, "key_version": 2**32 - 1}, "CHANNEL_KEY_STALE"),
        (ann, "SetCursor", {"channel_id": id_, "cursor": 2**64 - 1}, "CURSOR_ABOVE_HEAD"),
        (ann, "ListPosts", {"channel_id": id_, "after_seq": 2**64 - 1}, ""),
        (eve, "CreatePost", posting, "CHANNEL_UNKNOWN"),
        (eve, "ListPosts", {"channel_id": id_}, "CHANNEL_UNKNOWN"),
        (eve, "Subscribe", {"channel_id": id_, "link_key": bytes(32)}, "CHANNEL_LINK_INVALID"),
        (eve, "Unsubscribe", {"channel_id": id_}, ""),
    ):
        assert await refusal(gateway, account, method, **fields) == reason, (method, fields)


async def test_a_large_post_is_rung_and_read(mesh: Mesh) -> None:
    gateway = mesh.gateway_addresses[0]
    ann, ben = await register_all(gateway, 2)
    channel, body = await make_channel(gateway, ann), bytes(64 * 1024)
    await subscribe(gateway, ben, channel)

    async with Device(ben, gateway) as bob:
        await bob.hello()
        await post(gateway, ann, channel, body)
        await bob.until(lambda: bool(bob.all("channel_heads")))
        assert not bob.all("channel_post")
    assert (await list_posts(gateway, ben, channel)).posts[0].ciphertext == body
