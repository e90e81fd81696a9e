"""Which stream a push goes down."""

import pytest

from svc_message.routing import Router
from tests.svc_message.messaging.conftest import EmptyRegistry, RecordingGateway

DEVICE = (b"u" * 16, 1)


class KnowingRegistry:
    """A registry in which everybody is connected to one gateway."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id

    async def routes(self, devices):
        return dict.fromkeys(devices, self._instance_id)


async def resolve(router: Router) -> None:
    """Let the router ask the registry what it has to ask."""
    routes = await router._registry.routes([*router._pending])
    for device in [*router._pending]:
        router._resolve(device, routes[device])


def test_a_gateway_of_two_streams_is_pushed_to_until_both_have_ended() -> None:
    router, older, newer = Router(EmptyRegistry()), RecordingGateway(), RecordingGateway()
    router.attach(older)
    router.attach(newer)
    router.learn(DEVICE, newer)

    router.detach(newer)
    router.replace(DEVICE, 7, RecordingGateway("another"))
    router.detach(older)
    router.replace(DEVICE, 8, RecordingGateway("a third"))

    assert older.ended == [(DEVICE, 7)]
    assert newer.ended == []


@pytest.mark.parametrize(("knows", "rings"), [("new", [(DEVICE, 5, 3)]), ("old", [])])
async def test_a_device_that_has_moved_is_rung_for_where_the_registry_knows_it(
    knows: str, rings: list[object]
) -> None:
    router, old, new = (
        Router(KnowingRegistry(knows)),
        RecordingGateway("old"),
        RecordingGateway("new"),
    )
    router.attach(old)
    router.attach(new)
    router.learn(DEVICE, old)

    assert router.forget(DEVICE, old)
    assert not router.forget(DEVICE, old)
    router.ring_elsewhere(DEVICE, 5, 3, not_at=old)
    await resolve(router)

    assert new.rung == rings
    assert old.rung == []
