"""What a gateway relies on: the message service that its tests fake and the real one keep it alike.

Each test runs on both, over an Attach stream. The gateway's own tests see only the fake one.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from secrets import token_hex
from typing import Any, Self

import grpc
import pytest

from mesh.ids import new_ulid, random_id
from svc_gateway.conversation import direct
from tests.e2e.device import WITHIN, name_of
from tests.e2e.people import register
from tests.svc_gateway.fake_message import RunningMessage, Store
from tests.tls import calling_as
from whimbrel.message.v1 import attach_pb2, message_pb2_grpc, receipt_pb2, send_pb2
from whimbrel_cli.stack.mesh import Mesh

Answer = attach_pb2.MessageEvent


class Attached:
    """A gateway's stream to one instance: asks, and keeps the pushes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.pushes: list[Answer] = []
        self._channel = channel
        self._ids = itertools.count(1)
        self._answers: dict[int, Answer] = {}
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        stub = message_pb2_grpc.MessageServiceStub(self._channel)
        self._call = stub.Attach()
        hello = attach_pb2.GatewayHello(instance_id=f"gateway-{token_hex(4)}")
        await self._call.write(
            attach_pb2.AttachRequest(events=[attach_pb2.GatewayEvent(hello=hello)])
        )
        self._reading = asyncio.create_task(self._read(), name="attached")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._channel.close()

    async def ask(self, **request: Any) -> Answer:
        """The answer to one request."""
        event = attach_pb2.GatewayEvent(id=next(self._ids), **request)
        await self._call.write(attach_pb2.AttachRequest(events=[event]))
        await self.until(lambda: event.id in self._answers)
        return self._answers[event.id]

    async def head(
        self, device: attach_pb2.DeviceAddress, *, pos: int = 0, receipts: int = 0
    ) -> attach_pb2.Head:
        """Where the queue stands once it has come so far: copies and receipts follow the answer."""
        async with asyncio.timeout(WITHIN):
            while True:
                asked = attach_pb2.FetchHeads(devices=[device])
                (head,) = (await self.ask(fetch_heads=asked)).heads.heads
                if head.head_pos >= pos and head.receipt_version >= receipts:
                    return head

    async def pushed(self, kind: str, count: int) -> list[Any]:
        """The pushes of a kind, once there are so many."""

        def found() -> list[Any]:
            return [getattr(one, kind) for one in self.pushes if one.WhichOneof("event") == kind]

        await self.until(lambda: len(found()) >= count)
        return found()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN), self._news:
            await self._news.wait_for(condition)

    async def _read(self) -> None:
        while (frame := await self._call.read()) is not grpc.aio.EOF:
            async with self._news:
                for event in frame.events:
                    if event.id:
                        self._answers[event.id] = event
                    else:
                        self.pushes.append(event)
                self._news.notify_all()


class Place:
    """A message service with accounts, and streams to it."""

    def __init__(self, real: Mesh | None, opened: AsyncExitStack) -> None:
        self._real = real
        self._opened = opened
        self._fake = RunningMessage(Store(), "message-1")

    async def start(self) -> None:
        if self._real is None:
            await self._fake.start()
            self._opened.push_async_callback(self._fake.stop)

    async def person(self) -> attach_pb2.DeviceAddress:
        """The only device of an account."""
        if self._real is None:
            return attach_pb2.DeviceAddress(user_id=new_ulid(), device_id=1)
        account = await register(self._real.gateway_addresses[0])
        return attach_pb2.DeviceAddress(user_id=account.user_id, device_id=account.device_id)

    async def gateway(self) -> Attached:
        channel = (
            grpc.aio.insecure_channel(self._fake.address)
            if self._real is None
            else calling_as(self._real, "gateway")
        )
        return await self._opened.enter_async_context(Attached(channel))


@pytest.fixture
async def place(real: Mesh | None) -> AsyncIterator[Place]:
    async with AsyncExitStack() as opened:
        place = Place(real, opened)
        await place.start()
        yield place


def opening(device: attach_pb2.DeviceAddress) -> attach_pb2.OpenSession:
    return attach_pb2.OpenSession(device=device, credential_version=1)


def a_send(
    sender: attach_pb2.DeviceAddress, to: attach_pb2.DeviceAddress, body: bytes = b"hi"
) -> attach_pb2.DeviceSend:
    chat = direct(sender.user_id, to.user_id)
    send = send_pb2.Send(
        client_message_id=random_id(),
        user_id=to.user_id,
        shared=send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_PLAIN, ciphertext=body),
    )
    send.first_tried_at.FromMilliseconds(int(time.time() * 1000))
    return attach_pb2.DeviceSend(
        device=sender, conversation_id=chat.conversation_id, home=chat.home, send=send
    )


def page_of(
    device: attach_pb2.DeviceAddress, after: int = 0, most: int = 256, size: int = 1 << 20
) -> attach_pb2.FetchPage:
    return attach_pb2.FetchPage(device=device, after_pos=after, max_envelopes=most, max_bytes=size)


async def test_a_session_opens_under_a_greater_epoch_and_tells_where_its_queue_stands(
    place: Place,
) -> None:
    gateway, alice, bob = await place.gateway(), await place.person(), await place.person()

    first = (await gateway.ask(open=opening(bob))).opened
    await gateway.ask(send=a_send(alice, bob))
    await gateway.ask(send=a_send(alice, bob))
    await gateway.head(bob, pos=2)
    await gateway.ask(ack=attach_pb2.DeviceAck(device=bob, up_to_pos=1))
    await gateway.head(alice, receipts=1)
    second = (await gateway.ask(open=opening(bob))).opened
    of_alice = (await gateway.ask(open=opening(alice))).opened

    assert (first.head_pos, first.acked_pos, first.receipt_version) == (0, 0, 0)
    assert second.epoch > first.epoch > 0
    assert (second.head_pos, second.acked_pos) == (2, 1)
    assert of_alice.receipt_version == 1
    assert abs(second.server_time.ToSeconds() - time.time()) < 60


async def test_a_message_is_accepted_once_and_pushed_where_its_reader_is(place: Place) -> None:
    alice, bob = await place.person(), await place.person()
    at_alice, at_bob = await place.gateway(), await place.gateway()
    await at_bob.ask(open=opening(bob))
    send = a_send(alice, bob, b"hello")

    first = (await at_alice.ask(send=send)).accepted
    again = (await at_alice.ask(send=send)).accepted
    await at_alice.ask(send=a_send(alice, bob, b"last"))
    pushed, last = await at_bob.pushed("deliver", 2)

    envelope = pushed.envelope
    assert first == again
    assert (first.seq, first.client_message_id) == (1, send.send.client_message_id)
    assert pushed.device == bob
    assert (envelope.pos, envelope.seq, envelope.message_id) == (1, 1, first.message_id)
    assert (envelope.user_id, envelope.sender_user_id) == (alice.user_id, alice.user_id)
    assert (envelope.sender_device_id, envelope.ciphertext) == (1, b"hello")
    assert envelope.accepted_at == first.accepted_at
    assert (last.envelope.pos, last.envelope.ciphertext) == (2, b"last")


async def test_a_page_is_cut_by_rows_and_by_bytes_and_has_what_is_not_acknowledged(
    place: Place,
) -> None:
    gateway, alice, bob = await place.gateway(), await place.person(), await place.person()
    for body in (b"one", b"two", b"three", b"four"):
        await gateway.ask(send=a_send(alice, bob, body))
    await gateway.head(bob, pos=4)
    await gateway.ask(ack=attach_pb2.DeviceAck(device=bob, up_to_pos=1))

    everything = (await gateway.ask(fetch_page=page_of(bob))).page
    two = (await gateway.ask(fetch_page=page_of(bob, most=2))).page
    by_size = (await gateway.ask(fetch_page=page_of(bob, size=1))).page
    rest = (await gateway.ask(fetch_page=page_of(bob, after=3))).page
    nothing = (await gateway.ask(fetch_page=page_of(bob, after=4))).page

    def seen(page: attach_pb2.Page) -> list[tuple[int, bytes]]:
        return [(one.pos, one.ciphertext) for one in page.envelopes]

    assert seen(everything) == [(2, b"two"), (3, b"three"), (4, b"four")]
    assert (everything.head_pos, everything.acked_pos, everything.cut) == (4, 1, False)
    assert (seen(two), two.cut) == ([(2, b"two"), (3, b"three")], True)
    assert (seen(by_size), by_size.cut) == ([(2, b"two")], True)
    assert (seen(rest), rest.cut) == ([(4, b"four")], False)
    assert (seen(nothing), nothing.cut, nothing.head_pos) == ([], False, 4)


async def test_an_ack_is_recorded_never_goes_back_and_becomes_a_receipt(place: Place) -> None:
    alice, bob = await place.person(), await place.person()
    at_alice, at_bob = await place.gateway(), await place.gateway()
    await at_alice.ask(open=opening(alice))
    await at_alice.ask(send=a_send(alice, bob))
    await at_alice.ask(send=a_send(alice, bob))
    await at_bob.head(bob, pos=2)

    acked = (await at_bob.ask(ack=attach_pb2.DeviceAck(device=bob, up_to_pos=2))).acked
    earlier = (await at_bob.ask(ack=attach_pb2.DeviceAck(device=bob, up_to_pos=1))).acked
    (pushed,) = await at_alice.pushed("receipt", 1)
    asked = attach_pb2.FetchReceipts(user_id=alice.user_id, after_version=0, max_receipts=500)
    page = (await at_alice.ask(fetch_receipts=asked)).receipts
    asked.after_version = page.receipt_version
    after = (await at_alice.ask(fetch_receipts=asked)).receipts

    assert (acked.acked_pos, earlier.acked_pos) == (2, 2)
    assert pushed.device == alice
    assert [(one.first, one.last) for one in pushed.receipt.delivered] == [(1, 2)]
    assert pushed.receipt.user_id == bob.user_id
    assert list(page.receipts) == [pushed.receipt]
    assert page.receipt_version == pushed.receipt.version
    assert (list(after.receipts), after.receipt_version) == ([], page.receipt_version)


async def test_an_ack_above_the_head_is_refused(place: Place) -> None:
    gateway, bob = await place.gateway(), await place.person()

    answer = await gateway.ask(ack=attach_pb2.DeviceAck(device=bob, up_to_pos=1))

    assert name_of(answer.refused.reason) == "ACK_ABOVE_HEAD"
    assert not answer.refused.HasField("retry_after")


async def test_a_reading_is_recorded(place: Place) -> None:
    gateway, alice, bob = await place.gateway(), await place.person(), await place.person()
    await gateway.ask(send=a_send(alice, bob))
    read = receipt_pb2.Read(user_id=alice.user_id, up_to_seq=1)
    chat = direct(alice.user_id, bob.user_id)

    answer = await gateway.ask(
        read=attach_pb2.DeviceRead(device=bob, conversation_id=chat.conversation_id, read=read)
    )

    assert answer.WhichOneof("event") == "read_recorded"


async def test_heads_tell_where_queues_stand(place: Place) -> None:
    gateway, alice, bob = await place.gateway(), await place.person(), await place.person()
    epoch = (await gateway.ask(open=opening(bob))).opened.epoch
    await gateway.ask(send=a_send(alice, bob))
    await gateway.ask(send=a_send(alice, bob))
    await gateway.head(bob, pos=2)
    await gateway.ask(ack=attach_pb2.DeviceAck(device=bob, up_to_pos=1))
    await gateway.head(alice, receipts=1)

    asked = attach_pb2.FetchHeads(devices=[alice, bob])
    heads = (await gateway.ask(fetch_heads=asked)).heads.heads

    at = {head.device.user_id: head for head in heads}
    of_bob, of_alice = at[bob.user_id], at[alice.user_id]
    assert (of_bob.head_pos, of_bob.acked_pos, of_bob.epoch) == (2, 1, epoch)
    assert (of_alice.head_pos, of_alice.receipt_version) == (0, 1)
    assert of_bob.linked
    assert of_alice.linked
