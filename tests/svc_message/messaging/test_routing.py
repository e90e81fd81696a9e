"""Which stream a push goes down."""

from svc_message.routing import Router
from tests.svc_message.messaging.conftest import EmptyRegistry, RecordingGateway

DEVICE = (b"u" * 16, 1)


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
