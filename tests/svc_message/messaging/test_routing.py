"""Which stream a push goes down."""

import asyncio
import contextlib

import pytest

from mesh.testing import settle
from svc_message.groups.requests import RunPlace
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


class Heard:
    """Remembers who was missed, who came and who has ended."""

    def __init__(self) -> None:
        self.missed: list = []
        self.came: list = []
        self.over: list = []

    def absent(self, device) -> None:
        self.missed.append(device)

    def connected(self, device, epoch) -> None:
        self.came.append((device, epoch))

    def unlinked(self, device) -> None:
        self.over.append(device)


class LostRegistry:
    """A registry that cannot be asked."""

    async def routes(self, devices):
        return None


def mail_for(router: Router) -> None:
    router.deliver_run(None, [RunPlace(*DEVICE, 1, 1)])


@pytest.mark.parametrize(
    ("registry", "missed"),
    [
        (EmptyRegistry(), [DEVICE]),
        (KnowingRegistry("not attached"), [DEVICE]),
        (KnowingRegistry("here"), []),
        (LostRegistry(), []),
    ],
    ids=["nowhere", "at a gateway that is gone", "here", "nobody knows"],
)
async def test_a_device_without_a_session_is_missed_when_it_has_mail(registry, missed) -> None:
    router, gateway, heard = Router(registry), RecordingGateway("here"), Heard()
    router.absences = heard
    router.attach(gateway)

    async with running(router):
        mail_for(router)
        mail_for(router)
        await settle()

    assert heard.missed == missed
    assert len(gateway.runs) == (0 if missed or isinstance(registry, LostRegistry) else 2)


async def test_a_device_that_misses_a_receipt_only_is_not_missed() -> None:
    router, heard = Router(EmptyRegistry()), Heard()
    router.absences = heard

    async with running(router):
        router.low_prekeys(DEVICE, 1, 1)
        await settle()

    assert heard.missed == []


async def test_a_gateway_that_has_lost_the_device_lets_it_be_missed() -> None:
    router, old, heard = Router(KnowingRegistry("old")), RecordingGateway("old"), Heard()
    router.absences = heard
    router.attach(old)

    async with running(router):
        router.ring_elsewhere(DEVICE, 5, 3, not_at=old)
        await settle()

    assert heard.missed == [DEVICE]


async def test_sessions_and_ends_are_heard_of() -> None:
    router, heard = Router(EmptyRegistry()), Heard()
    router.absences = heard

    router.replace(DEVICE, 4, RecordingGateway())
    await router.revoke(DEVICE, 5)

    assert (heard.came, heard.over) == ([(DEVICE, 4)], [DEVICE])


@contextlib.asynccontextmanager
async def running(router: Router):
    running = asyncio.create_task(router.run())
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
