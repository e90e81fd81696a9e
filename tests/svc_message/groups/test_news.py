"""The hint that a group has changed: to whom it goes, and how often."""

import asyncio

from mesh.ids import new_ulid
from mesh.telemetry import OFF
from svc_message.groups.news import GroupNews
from svc_message.link import GatewayLink
from svc_message.routing import Router
from svc_message.shards.directory import ShardUnavailable

_GROUP, _AWAY = new_ulid(), new_ulid()
_ANN, _BEN, _EVE = (new_ulid() for _ in range(3))


class _Store:
    """Two groups; the shard of one is away."""

    async def member_ids(self, group_id):
        if group_id == _AWAY:
            raise ShardUnavailable("the shard cannot be reached", metadata={"shard": "s0"})
        return [_ANN, _BEN]


class _Registry:
    """Ann has two devices online, Eve one, Ben none."""

    async def routes(self, devices):
        online = {(_ANN, 1): "g0", (_ANN, 3): "g1", (_EVE, 1): "g0", (new_ulid(), 1): "g1"}
        return {device: online[device] for device in devices if device in online}


async def test_many_changes_are_one_frame_a_gateway_and_one_lost_costs_no_other() -> None:
    router, heard = Router(_Registry()), {"g0": [], "g1": []}
    news = GroupNews(_Store(), router)
    async with asyncio.TaskGroup() as tasks:
        for name, events in heard.items():
            link = GatewayLink(name, OFF)
            router.attach(link)

            async def write(frame, events=events) -> None:
                events += frame.events

            tasks.create_task(link.write_to(write))
        news.note(_AWAY, 9, ())
        for revision in range(2, 40):
            news.note(_GROUP, revision, ())
        news.note(_GROUP, 40, [_EVE])
        telling = tasks.create_task(news.run())
        async with asyncio.timeout(5):
            while not (heard["g0"] and heard["g1"]):
                await asyncio.sleep(0.001)
        telling.cancel()
        for gateway in router._gateways.values():
            gateway.close()

    [event] = heard["g0"]
    push = event.group_news
    assert (push.news.group_id, push.news.revision) == (_GROUP, 40)
    assert {(one.user_id, one.device_id) for one in push.devices} == {(_ANN, 1), (_EVE, 1)}
    [event] = heard["g1"]
    assert [(one.user_id, one.device_id) for one in event.group_news.devices] == [(_ANN, 3)]


async def test_what_waits_is_bounded() -> None:
    news = GroupNews(_Store(), Router(_Registry()))
    for _ in range(2_000):
        news.note(new_ulid(), 1, ())
    news.note(_GROUP, 1, ())
    assert len(news._waiting) == 1_000
