"""A channel through the whole mesh: made, followed, posted to, read."""

import contextlib

from tests.e2e.channels import MadeChannel, call, list_posts, make_channel, post, subscribe
from tests.e2e.device import Device
from tests.e2e.people import Account, register_all
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
        await _rung(bob, gateways[0], ann, channel)
        seq = await _rung(carl, gateways[0], ann, channel)
        await bob.until(lambda: bob.all("channel_post")[-1].seq == seq)
        last = bob.all("channel_post")[-1]
        assert (last.channel_id, last.ciphertext) == (channel.channel_id, b"words")

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


async def _rung(device: Device, gateway: str, author: Account, channel: MadeChannel) -> int:
    """Post until the device hears a post: its gateway learns soon after hello what it follows."""
    for _ in range(50):
        await post(gateway, author, channel)
        with contextlib.suppress(TimeoutError):
            await device.until(lambda: bool(device.all("channel_post")), 0.2)
            return int(device.all("channel_post")[-1].seq)
    raise AssertionError("no post was heard")
