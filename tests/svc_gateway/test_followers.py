"""What followers of channels hear at a gateway, whatever gets lost on the way to it."""

from mesh.ids import random_id
from svc_gateway.window import KIB
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.device import TestDevice
from tests.svc_gateway.fake_message import until
from whimbrel.message.v1 import attach_pb2

# A peer that grants the server 64 KiB and no more until it reads.
_NARROW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * KIB)]


async def follower(edge: Edge, *channel_ids: bytes) -> TestDevice:
    """Somebody who follows these channels, and whose gateway knows it."""
    device = edge.device()
    edge.store.subscriptions[device.user_id] |= set(channel_ids)
    await device.hello()
    followers = edge.gateway.followers
    await until(lambda: all(_follows(followers, one, device) for one in channel_ids))
    return device


def _follows(followers, channel_id: bytes, device: TestDevice) -> bool:
    streams = followers._streams.get(channel_id, ())
    return any(stream.device.user_id == device.user_id for stream in streams)


def _last_head(device: TestDevice) -> int:
    told = device.all("channel_heads")
    return told[-1].heads[0].head_seq if told else 0


def a_post(channel_id: bytes, seq: int, body: bytes = b"words") -> attach_pb2.MessageEvent:
    post = attach_pb2.MessageEvent()
    post.channel_post.channel_id, post.channel_post.seq = channel_id, seq
    post.channel_post.ciphertext = body
    return post


def heads(channel_id: bytes, seq: int) -> attach_pb2.MessageEvent:
    event = attach_pb2.MessageEvent()
    event.channel_heads.heads.add(channel_id=channel_id, head_seq=seq)
    return event


def subscription(device: TestDevice, channel_id: bytes, *, is_there: bool):
    event = attach_pb2.MessageEvent()
    event.subscription.devices.add(user_id=device.user_id, device_id=1)
    event.subscription.channel_id, event.subscription.subscribed = channel_id, is_there
    return event


def push(edge: Edge, *events: attach_pb2.MessageEvent) -> None:
    for link in edge.store.links:
        for event in events:
            link.say(event)


async def test_one_push_reaches_all_who_follow_here_and_nobody_else(edge: Edge) -> None:
    await edge.start()
    one, other = random_id(), random_id()
    ann, ben = await follower(edge, one), await follower(edge, one, other)
    eve = await edge.connect()

    push(edge, a_post(one, 1), a_post(other, 1), a_post(random_id(), 1))

    await ann.until(lambda: bool(ann.all("channel_post")))
    await ben.until(lambda: len(ben.all("channel_post")) == 2)
    assert [post.channel_id for post in ann.all("channel_post")] == [one]
    assert ann.all("channel_post")[0].ciphertext == b"words"
    assert not eve.all("channel_post")


async def test_a_session_learns_at_its_start_where_its_channels_stand(edge: Edge) -> None:
    await edge.start()
    one, empty = random_id(), random_id()
    edge.store.channel_heads[one] = 7

    ann = await follower(edge, one, empty)

    await ann.until(lambda: bool(ann.all("channel_heads")))
    [told] = ann.all("channel_heads")
    assert [(head.channel_id, head.head_seq) for head in told.heads] == [(one, 7)]


async def test_a_lost_post_is_heard_of_when_heads_are_compared(edge: Edge) -> None:
    await edge.start()
    channel_id = random_id()
    ann = await follower(edge, channel_id)
    push(edge, a_post(channel_id, 1))
    await ann.until(lambda: bool(ann.all("channel_post")))

    edge.store.channel_heads[channel_id] = 2  # its push was lost
    edge.gateway.heads.soon()

    await ann.until(lambda: _last_head(ann) == 2)


async def test_a_broken_stream_is_made_good_at_once(edge: Edge) -> None:
    await edge.start(messages=2)
    channel_id = random_id()
    ann = await follower(edge, channel_id)
    edge.store.channel_heads[channel_id] = 3

    await edge.message.stop()

    await ann.until(lambda: _last_head(ann) == 3)


async def test_subscriptions_change_while_one_is_online(edge: Edge) -> None:
    await edge.start()
    channel_id = random_id()
    ann = await follower(edge)
    edge.store.channel_heads[channel_id] = 1

    edge.store.subscriptions[ann.user_id] = {channel_id}
    push(edge, subscription(ann, channel_id, is_there=True))
    await ann.until(lambda: bool(ann.all("channel_heads")))
    push(edge, a_post(channel_id, 2))
    await ann.until(lambda: bool(ann.all("channel_post")))
    edge.store.subscriptions[ann.user_id] = set()
    push(edge, subscription(ann, channel_id, is_there=False), a_post(channel_id, 3))
    await until(lambda: not edge.gateway.followers._streams)

    assert [post.seq for post in ann.all("channel_post")] == [2]


async def test_a_change_that_nobody_told_is_found_in_a_round(edge: Edge) -> None:
    await edge.start()
    one, other = random_id(), random_id()
    ann = await follower(edge, one)

    edge.store.subscriptions[ann.user_id] = {other}
    edge.store.channel_heads[other] = 4
    edge.gateway.heads.soon()

    await ann.until(lambda: bool(ann.all("channel_heads")))
    assert ann.all("channel_heads")[-1].heads[0].channel_id == other
    assert set(edge.gateway.followers._streams) == {other}


async def test_who_reads_nothing_holds_up_nobody_and_is_told_later(edge: Edge) -> None:
    await edge.start()
    channel_id, posts = random_id(), 60
    slow = edge.device(options=_NARROW)
    edge.store.subscriptions[slow.user_id] = {channel_id}
    await slow.say_hello()  # and reads nothing
    ann = await follower(edge, channel_id)
    followers = edge.gateway.followers
    await until(lambda: len(followers._streams.get(channel_id, ())) == 2)

    for seq in range(1, posts + 1):
        push(edge, a_post(channel_id, seq, b"x" * 16 * KIB))
        await ann.until(lambda seq=seq: len(ann.all("channel_post")) == seq)
    assert followers._owed  # to the slow one, who has no room

    slow.listen()
    await slow.until(lambda: _last_head(slow) == posts)
    assert len(slow.all("channel_post")) < posts


async def test_what_is_known_goes_with_the_sessions(edge: Edge) -> None:
    await edge.start()
    ann = await follower(edge, random_id())

    await ann.close()
    followers = edge.gateway.followers
    await until(lambda: not followers._by_age)

    assert not followers._streams
    assert not followers._channels
    assert not followers._heads
    assert not followers._owed
