import asyncio

import grpc
import pytest

from mesh.channels import Channels
from mesh.errors import Unavailable
from mesh.instances import Instance, new_instance_id
from mesh.rendezvous import Rendezvous
from mesh.tls import Identity


def instances(*ids, port=1):
    return {
        name: Instance(name, "svc_x", f"127.0.0.1:{port}")
        for port, name in enumerate(ids, start=port)
    }


@pytest.fixture
async def channels():
    made = Channels(Identity.insecure("x"))
    yield made
    await made.close()


async def test_an_instance_keeps_its_one_channel(channels):
    channels.update(instances("a", "b"))
    first = channels.channel("a")

    channels.update(instances("a", "c"))

    assert channels.channel("a") is first
    assert channels.channel("c") is not first


async def test_the_channel_of_one_that_leaves_is_closed_and_its_calls_end(listen):
    begun = asyncio.Event()

    async def hang(_request, _context):
        begun.set()
        await asyncio.Event().wait()

    channels = Channels(Identity.insecure("x"))
    channels.update({"a": Instance("a", "svc_x", await listen(hang))})
    calling = asyncio.ensure_future(channels.channel("a").unary_unary("/test.Test/UnaryUnary")(b""))
    await begun.wait()

    channels.update({})

    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await calling
    with pytest.raises(Unavailable):
        channels.channel("a")
    await channels.close()


async def test_who_starts_again_at_its_address_takes_the_place_of_who_was_there(channels):
    before, after, other = sorted(new_instance_id() for _ in range(3))
    there = {name: Instance(name, "svc_x", "127.0.0.1:1") for name in (after, before)}
    channels.update(there | {other: Instance(other, "svc_x", "127.0.0.1:2")})

    assert {*channels.instances} == {*channels.rendezvous.instance_ids} == {after, other}
    with pytest.raises(Unavailable):
        channels.channel(before)


async def test_an_instance_at_a_new_address_gets_a_new_channel(channels):
    channels.update(instances("a", port=1))
    first = channels.channel("a")

    channels.update(instances("a", port=2))

    assert channels.channel("a") is not first


async def test_the_pick_is_the_rendezvous_of_the_known_instances(channels):
    channels.update(instances("a", "b", "c"))

    picked = [channels.pick(slot) for slot in range(50)]

    expected = Rendezvous(["a", "b", "c"])
    assert picked == [channels.channel(expected.pick(slot)) for slot in range(50)]


async def test_the_picks_are_kept_while_the_same_instances_are_there(channels):
    channels.update(instances("a", "b"))
    before = channels.rendezvous

    channels.update(instances("b", "a"))

    assert channels.rendezvous is before


async def test_without_instances_a_pick_is_unavailable(channels):
    with pytest.raises(Unavailable, match="no instance"):
        channels.pick(1)


def test_an_instance_reads_back_from_its_entry():
    instance = Instance("i", "svc_x", "h:1", "zone-a", "1.2")

    assert Instance.from_json("i", "svc_x", instance.to_json()) == instance
    assert Instance.from_json("i", "s", b'{"address": "h:1", "newer": 1}').address == "h:1"


@pytest.mark.parametrize("value", [b"", b"[]", b'"text"', b"{}", b'{"zone": "a"}', b"\xff"])
def test_an_entry_that_is_no_instance_is_refused(value):
    with pytest.raises(ValueError, match="an instance"):
        Instance.from_json("i", "svc_x", value)


def test_instance_ids_are_new_at_each_start():
    assert new_instance_id() != new_instance_id()
