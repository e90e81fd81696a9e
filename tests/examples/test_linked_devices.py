"""The example client writes to all devices of a person, also to one that it did not know of."""

from contextlib import AsyncExitStack

import pytest

from tests.e2e.device import Device
from tests.e2e.test_devices import Caller, callers
from tests.examples.conftest import Foreigners
from whimbrel.content.v1 import content_pb2
from whimbrel.message.v1 import envelope_pb2, send_pb2
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import crypto

pytestmark = pytest.mark.timeout(180)


MOST_TRIES = 200  # the mesh may believe a list of devices for a second


class Reader:
    """A linked device: one stream, and what it can read."""

    def __init__(self, caller: Caller, stream: Device) -> None:
        self._caller = caller
        self.stream = stream

    async def words(self, count: int) -> list[str]:
        """What the messages say; waits for so many."""
        record, words = crypto.SessionRecord(), []
        for envelope in await self.stream.delivered(count, within=60):
            record, body = self._opened(record, envelope)
            words.append(body)
        return words

    def _opened(
        self, record: crypto.SessionRecord, envelope: envelope_pb2.Envelope
    ) -> tuple[crypto.SessionRecord, str]:
        assert envelope.type == send_pb2.CIPHERTEXT_TYPE_PREKEY  # nobody has answered
        message, own = crypto.open_prekey(envelope.ciphertext), None
        if record.needs_prekeys(message):
            own = crypto.PrivatePrekeys(self._caller.signed, self._caller.last_resort)
        device = crypto.Device(self._caller.identity, 1)
        received = record.decrypt_first(message, device, own)
        content = content_pb2.Content.FromString(crypto.unpad(received.plaintext))
        return received.record, content.text.body


async def test_a_device_that_replaced_another_gets_what_is_sent_from_then_on(
    foreigners: Foreigners, mesh: Mesh
) -> None:
    async with AsyncExitStack() as opened:
        new = await opened.enter_async_context(callers(mesh))
        node = await opened.enter_async_context(foreigners.client())

        async def reader(caller: Caller) -> Reader:
            stream = Device(caller.account, mesh.gateway_addresses[0])
            await opened.enter_async_context(stream)
            await stream.hello()
            return Reader(caller, stream)

        phone = await new()
        old = await new(phone)
        at_phone, at_old = await reader(phone), await reader(old)
        await node.send(phone.account.handle, "0")
        assert await at_old.words(1) == ["0"]

        await phone.devices("RevokeDevice", device_id=old.account.device_id)
        at_tablet = await reader(await new(phone))
        sent = 1
        while not at_tablet.stream.positions and sent < MOST_TRIES:
            await node.send(phone.account.handle, f"{sent}")
            sent += 1
            await node.accepted(sent)

        first, *_ = await at_tablet.words(1)
        assert await at_phone.words(sent) == [f"{number}" for number in range(sent)]
        assert await at_tablet.words(sent - int(first)) == [
            f"{number}" for number in range(int(first), sent)
        ]
        assert at_old.stream.bodies[1:] == []
