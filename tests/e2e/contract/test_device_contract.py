"""What a device relies on: the SDK's fake mesh and the real one keep it alike.

Each test runs on both. The SDK's own tests see only the fake one, so what they rely on stands here.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from secrets import token_hex

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.ids import random_id
from tests.e2e import people
from tests.e2e.device import Device, name_of, reason_of
from tests.whimbrel_client.fake_gateway import FakeMesh, running_gateway
from whimbrel.message.v1 import send_pb2
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Account, CallFailed, DeviceRevoked, HandleTaken, HandleUnknown
from whimbrel_client.account_calls import AccountCalls
from whimbrel_client.clock import ServerClock
from whimbrel_client.device_keys import OwnKeys, new_keys, new_pools, published
from whimbrel_client.identity import IdentityCalls
from whimbrel_client.key_calls import KeyCalls
from whimbrel_client.registering import Applicant, register

DAY = 86_400.0
RATCHET = send_pb2.CIPHERTEXT_TYPE_RATCHET


@pytest.fixture
async def gateway(real: Mesh | None) -> AsyncIterator[str]:
    """The address of a gateway."""
    if real is not None:
        yield real.gateway_addresses[0]
        return
    async with running_gateway(FakeMesh()) as fake:
        yield fake.address


@dataclass(slots=True)
class Person:
    """One account, with the keys that it registered."""

    calls: IdentityCalls
    account: Account
    key: Ed25519PrivateKey
    keys: OwnKeys
    token: str

    @property
    def user_id(self) -> bytes:
        return self.account.user_id

    @property
    def key_calls(self) -> KeyCalls:
        return KeyCalls(self.calls, self._token)

    @property
    def account_calls(self) -> AccountCalls:
        return AccountCalls(self.calls, self._token)

    async def _token(self) -> str:
        return self.token


class Town:
    """Registers people and opens their streams."""

    def __init__(self, gateway: str, opened: AsyncExitStack) -> None:
        self._gateway = gateway
        self._opened = opened

    def calls(self, *, ahead: float = 0.0) -> IdentityCalls:
        """The calls of somebody whose clock is wrong by so many seconds."""
        clock = ServerClock(wall=lambda: time.time() + ahead)
        return IdentityCalls([self._gateway], clock=clock)

    async def person(self) -> Person:
        calls, keys, key = self.calls(), new_keys(), Ed25519PrivateKey.generate()
        account, token = await register(calls, Applicant(f"p{token_hex(8)}"), key, published(keys))
        return Person(calls, account, key, keys, token)

    async def stream(self, person: Person) -> Device:
        """A stream that has said nothing yet."""
        name, device_id = person.account.handle, person.account.device_id
        account = people.Account(name, person.key, person.user_id, device_id, person.token)
        return await self._opened.enter_async_context(Device(account, self._gateway))

    async def online(self, person: Person, **hello: int) -> Device:
        """A stream that was welcomed."""
        device = await self.stream(person)
        await device.hello(**hello)
        return device


@pytest.fixture
async def town(gateway: str) -> AsyncIterator[Town]:
    async with AsyncExitStack() as opened:
        yield Town(gateway, opened)


def a_send(
    to: Person,
    body: bytes = b"sealed",
    *,
    devices: Sequence[tuple[int, int]] | None = None,
    id_: bytes | None = None,
    after: bytes = b"",
    age: float = 0.0,
) -> send_pb2.Send:
    """A send to the person's device, or to these: (device id, registration id)."""
    named = [(1, to.keys.device.registration_id)] if devices is None else devices
    send = send_pb2.Send(client_message_id=id_ or random_id(), user_id=to.user_id, after=after)
    for device_id, registration_id in named:
        send.per_device.bodies.add(
            user_id=to.user_id,
            device_id=device_id,
            registration_id=registration_id,
            type=RATCHET,
            ciphertext=body,
        )
    send.first_tried_at.FromMilliseconds(int((time.time() - age) * 1000))
    return send


async def test_a_message_comes_as_it_was_sent_and_its_receipt_goes_back(town: Town) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice, at_bob = await town.online(alice), await town.online(bob)
    send = a_send(bob, b"sealed for bob")

    accepted = await at_alice.accepted(send)
    (envelope,) = await at_bob.delivered(1)
    await at_bob.ack(envelope.pos)
    receipt = await at_alice.receipt_covering(bob.user_id, accepted.seq)

    assert (accepted.seq, accepted.client_message_id) == (1, send.client_message_id)
    assert (envelope.message_id, envelope.seq) == (accepted.message_id, 1)
    assert (envelope.user_id, envelope.sender_user_id) == (alice.user_id, alice.user_id)
    assert (envelope.sender_device_id, envelope.type) == (1, RATCHET)
    assert (envelope.ciphertext, envelope.accepted_at) == (b"sealed for bob", accepted.accepted_at)
    assert receipt.read_up_to == 0


async def test_a_send_that_is_repeated_has_its_first_answer_and_comes_once(town: Town) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice, at_bob = await town.online(alice), await town.online(bob)
    send = a_send(bob)

    await at_alice.send(send, send)
    first, again = await at_alice.answers(send, count=2)
    await at_alice.accepted(a_send(bob, b"last"))
    await at_bob.delivered(2)

    assert first == again
    assert at_bob.bodies == [b"sealed", b"last"]


async def test_another_content_under_a_used_id_is_a_conflict_with_the_first_answer(
    town: Town,
) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice = await town.online(alice)
    send = a_send(bob)
    first = await at_alice.accepted(send)

    await at_alice.send(a_send(bob, b"other", id_=send.client_message_id))
    _, conflict = await at_alice.answers(send, count=2)

    assert name_of(conflict.reason) == "CLIENT_MESSAGE_ID_CONFLICT"
    assert not conflict.HasField("retry_after")
    assert conflict.first_answer == first


@pytest.mark.parametrize("devices", ["none", "stale", "extra"])
async def test_a_send_that_names_other_devices_is_told_and_nothing_is_stored(
    town: Town, devices: str
) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice, at_bob = await town.online(alice), await town.online(bob)
    right = bob.keys.device.registration_id
    named = {"none": [(7, 9)], "stale": [(1, right + 1)], "extra": [(1, right), (7, 9)]}
    send = a_send(bob, devices=named[devices])

    await at_alice.send(send)
    await at_alice.until(lambda: bool(at_alice.all("device_mismatch")))
    (mismatch,) = at_alice.all("device_mismatch")
    accepted = await at_alice.accepted(a_send(bob, b"right", id_=send.client_message_id))
    await at_bob.delivered(1)

    def told(these: Sequence[send_pb2.Send]) -> list[tuple[bytes, int]]:
        return [(one.user_id, one.device_id) for one in these]

    ours, strange = (bob.user_id, 1), (bob.user_id, 7)
    assert mismatch.client_message_id == send.client_message_id
    assert told(mismatch.missing) == ([ours] if devices == "none" else [])
    assert told(mismatch.stale) == ([ours] if devices == "stale" else [])
    assert told(mismatch.extra) == ([] if devices == "stale" else [strange])
    assert accepted.seq == 1
    assert at_bob.bodies == [b"right"]


@pytest.mark.parametrize(
    ("reason", "changes", "is_final"),
    [
        ("RETRY_TOO_OLD", {"age": 8 * DAY}, True),
        ("PREVIOUS_NOT_ACCEPTED", {"after": b"n" * 16}, False),
    ],
)
async def test_a_send_that_cannot_be_taken_is_refused_for_good_or_for_now(
    town: Town, reason: str, changes: dict[str, object], is_final: bool
) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice = await town.online(alice)

    rejected = await at_alice.rejected(a_send(bob, **changes))  # type: ignore[arg-type]

    assert name_of(rejected.reason) == reason
    assert rejected.HasField("retry_after") != is_final


async def test_a_send_to_nobody_is_refused_for_good(town: Town) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice, send = await town.online(alice), a_send(bob)
    send.user_id = send.per_device.bodies[0].user_id = random_id()

    rejected = await at_alice.rejected(send)

    assert name_of(rejected.reason) == "RECIPIENT_UNKNOWN"
    assert not rejected.HasField("retry_after")


async def test_what_was_not_acknowledged_comes_again_in_its_place(town: Town) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice, at_bob = await town.online(alice), await town.online(bob)
    for body in (b"one", b"two", b"three"):
        await at_alice.accepted(a_send(bob, body))
    await at_bob.delivered(3)
    await at_bob.ack(at_bob.positions[0])
    await at_alice.receipt_covering(bob.user_id, 1)
    await at_bob.vanish()

    again = await town.online(bob)
    await again.delivered(2)
    caught_up_early = again.all("caught_up")
    await again.ack(again.positions[1])
    await again.until(lambda: bool(again.all("caught_up")))

    assert (again.positions, again.bodies) == (at_bob.positions[1:], [b"two", b"three"])
    assert caught_up_early == []
    assert again.all("caught_up")[0].pos == again.positions[-1]


async def test_no_more_is_delivered_unacknowledged_than_the_device_wants(town: Town) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice, at_bob = await town.online(alice), await town.online(bob, max_unacked=2)
    for body in (b"one", b"two", b"three"):
        await at_alice.accepted(a_send(bob, body))
    await at_bob.delivered(2)
    await at_bob.accepted(a_send(alice))  # whatever else was due has come by now
    held_back = len(at_bob.positions)

    await at_bob.ack(at_bob.positions[1])
    await at_bob.delivered(3)

    assert held_back == 2
    assert at_bob.bodies == [b"one", b"two", b"three"]


async def test_an_ack_of_what_was_not_delivered_ends_the_stream(town: Town) -> None:
    device = await town.online(await town.person())

    await device.ack(1)
    await device.ended()

    assert name_of(device.go_away.reason) == "PROTOCOL_VIOLATION"


async def test_a_second_stream_ends_the_first(town: Town) -> None:
    alice = await town.person()
    older = await town.online(alice)

    newer = await town.online(alice)
    await older.ended()

    assert name_of(older.go_away.reason) == "STREAM_REPLACED"
    assert newer.all("welcome")[0].epoch > older.all("welcome")[0].epoch


async def test_a_reading_is_recorded_and_told(town: Town) -> None:
    alice, bob = await town.person(), await town.person()
    at_alice, at_bob = await town.online(alice), await town.online(bob)
    await at_alice.accepted(a_send(bob))
    await at_bob.delivered(1)
    await at_bob.ack(at_bob.positions[0])

    await at_bob.read(alice.user_id, 1)
    await at_bob.until(lambda: bool(at_bob.all("read_recorded")))
    receipt = await at_alice.receipt_covering(bob.user_id, 1, is_read=True)
    again = await town.online(alice, after_receipts=receipt.version)
    await again.accepted(a_send(bob))

    recorded = at_bob.all("read_recorded")[0]
    assert (recorded.user_id, recorded.up_to_seq) == (alice.user_id, 1)
    assert receipt.read_up_to == 1
    # A receipt that the device has is not told again.
    assert again.all("receipt") == []


async def test_a_half_closed_stream_answers_and_ends_well(town: Town) -> None:
    alice, bob = await town.person(), await town.person()
    device, send = await town.online(alice), a_send(bob)

    await device.send(send)
    await device.half_close()
    failure = await device.ended()

    assert failure is None
    assert isinstance(await device.answer(send), send_pb2.Accepted)


async def test_one_time_keys_go_out_once_and_the_last_resort_always(town: Town) -> None:
    alice, bob = await town.person(), await town.person()
    pools = new_pools(bob.keys.device.identity, 2)
    few = type(pools)(pools.one_time[:1], pools.one_time_kem[:1])
    await bob.key_calls.upload(few)

    first = await alice.key_calls.fetch(bob.user_id, 1)
    left = await bob.key_calls.left()
    second = await alice.key_calls.fetch(bob.user_id, 0)

    (one,), (other,) = first.bundles, second.bundles
    assert first.identity_key == second.identity_key == bob.keys.device.identity.public
    assert one.one_time_prekey.key_id == few.one_time[0].id
    assert one.kem_prekey.key_id == few.one_time_kem[0].id
    assert left == 0
    assert not other.HasField("one_time_prekey")
    assert other.kem_prekey.public_key == bob.keys.last_resort.pair.public
    assert other.registration_id == bob.keys.device.registration_id


async def test_the_keys_of_nobody_are_unknown(town: Town) -> None:
    alice = await town.person()

    with pytest.raises(CallFailed) as failed:
        await alice.key_calls.fetch(random_id(), 0)

    assert failed.value.reason == "RECIPIENT_UNKNOWN"


async def test_a_handle_belongs_to_the_key_that_came_first(town: Town) -> None:
    alice = await town.person()
    handle, other = alice.account.handle, Ed25519PrivateKey.generate()
    applicant = Applicant(handle)

    again, _ = await register(alice.calls, applicant, alice.key, published(alice.keys))
    with pytest.raises(HandleTaken):
        await register(alice.calls, applicant, other, published(new_keys()))

    assert again == alice.account
    assert await alice.account_calls.user_named(handle) == alice.user_id
    with pytest.raises(HandleUnknown):
        await alice.account_calls.user_named(f"n{token_hex(8)}")


async def test_a_token_is_for_the_devices_key_and_the_right_time(town: Town) -> None:
    alice = await town.person()

    token, _ = await alice.calls.refresh(alice.account, alice.key)
    # Told the right time by the refusal, it tries again.
    late, _ = await town.calls(ahead=-DAY).refresh(alice.account, alice.key)
    with pytest.raises(DeviceRevoked) as refused:
        await alice.calls.refresh(alice.account, Ed25519PrivateKey.generate())

    assert token
    assert late
    assert refused.value.reason == "SIGNATURE_INVALID"


async def test_nobody_connects_without_a_good_token(town: Town) -> None:
    alice = await town.person()
    alice.token = "nobody's"

    device = await town.stream(alice)
    failure = await device.ended()

    assert failure is not None
    assert failure.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(failure) == "TOKEN_INVALID"
