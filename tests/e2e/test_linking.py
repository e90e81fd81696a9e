"""One person with two devices on the real mesh: both have every message, encrypted for each."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.people import Account, register
from tests.e2e.shards import on_each_shard
from whimbrel.content.v1.link_pb2 import LinkSecret
from whimbrel.identity.v1 import device_pb2, device_pb2_grpc
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import (
    Client,
    DeviceRevoked,
    DeviceUnknown,
    LinkFailed,
    Message,
    Profile,
    TooManyDevices,
    device_calls,
)
from whimbrel_client.clock import ServerClock
from whimbrel_client.crypto import curve
from whimbrel_client.device_keys import new_keys, published
from whimbrel_client.identity import IdentityCalls
from whimbrel_client.linking import Invitation, LinkCode

GREETING = "are you there?"


@asynccontextmanager
async def laptop_of(phone: Client, profile: Path, mesh: Mesh) -> AsyncIterator[Client]:
    """Link a second device and connect it."""
    loop = asyncio.get_running_loop()
    code: asyncio.Future[str] = loop.create_future()
    linking = asyncio.create_task(
        Client.link(profile, gateways=mesh.gateway_addresses, show=code.set_result, name="laptop")
    )
    await phone.link_device(await code)
    await linking
    async with Client.connect(profile) as laptop:
        yield laptop


async def reached(sender: Client, to: str, device: Client) -> None:
    """Send until the device has a copy: the mesh may know the devices as of a second ago."""
    copy = asyncio.create_task(spoken(device, 1, by=sender, greetings=True))
    async with asyncio.timeout(30):
        while not copy.done():
            await sender.accepted(await sender.send(to, GREETING))
            await asyncio.wait((copy,), timeout=0.1)


async def spoken(
    device: Client, count: int, *, by: Client | None = None, greetings: bool = False
) -> list[Message]:
    """The first messages on the device that are greetings, or that are none."""
    messages: list[Message] = []
    async with asyncio.timeout(30):
        async for message in device.messages():
            is_by = by is None or message.sender == by.user_id
            if is_by and (message.text == GREETING) is greetings:
                messages.append(message)
            if len(messages) == count:
                break
    return messages


@pytest.fixture
async def phone(mesh: Mesh, tmp_path: Path) -> AsyncIterator[Client]:
    """The primary of somebody."""
    handle, profile = f"p{secrets.token_hex(8)}", tmp_path / "phone"
    await Client.register(profile, handle, gateways=mesh.gateway_addresses)
    async with Client.connect(profile) as client:
        yield client


@pytest.fixture
def calls(mesh: Mesh) -> IdentityCalls:
    return IdentityCalls(mesh.gateway_addresses, clock=ServerClock())


async def test_a_linked_device_has_what_comes_and_what_the_other_one_sends(
    mesh: Mesh, tmp_path: Path
) -> None:
    alice, bob = (f"p{secrets.token_hex(8)}" for _ in range(2))
    for handle in (alice, bob):
        await Client.register(tmp_path / handle, handle, gateways=mesh.gateway_addresses)

    async with (
        Client.connect(tmp_path / alice) as phone,
        Client.connect(tmp_path / bob) as other,
    ):
        await phone.accepted(await phone.send(bob, "before the laptop"))
        async with laptop_of(phone, tmp_path / "laptop", mesh) as laptop:
            await reached(phone, bob, laptop)
            await reached(other, alice, laptop)
            await phone.accepted(await phone.send(bob, "from the phone"))
            await laptop.accepted(await laptop.send(bob, "from the laptop"))
            at_other = await spoken(other, 3)
            await other.accepted(await other.send(alice, "from bob"))
            at_laptop = await spoken(laptop, 2)
            at_phone = await spoken(phone, 2)
            numbers = [one.device_id for one in await phone.devices()]
            same = await laptop.safety_number(other.user_id) == await phone.safety_number(
                other.user_id
            )

    assert [m.text for m in at_other] == ["before the laptop", "from the phone", "from the laptop"]
    assert [(m.text, m.sender) for m in at_laptop] == [
        ("from the phone", phone.user_id),
        ("from bob", other.user_id),
    ]
    assert [(m.text, m.sender) for m in at_phone] == [
        ("from the laptop", phone.user_id),
        ("from bob", other.user_id),
    ]
    assert numbers == [1, 2]
    assert same
    assert Profile(tmp_path / "laptop").account().handle == alice


async def test_a_revoked_device_ends_and_nobody_writes_to_it_any_more(
    mesh: Mesh, tmp_path: Path
) -> None:
    alice, bob = (f"p{secrets.token_hex(8)}" for _ in range(2))
    for handle in (alice, bob):
        await Client.register(tmp_path / handle, handle, gateways=mesh.gateway_addresses)

    async with (
        Client.connect(tmp_path / alice) as phone,
        Client.connect(tmp_path / bob) as other,
    ):
        async with laptop_of(phone, tmp_path / "laptop", mesh) as laptop:
            await reached(other, alice, laptop)
            await phone.revoke_device(2)
            with pytest.raises(DeviceRevoked):
                await spoken(laptop, 1)
        await other.accepted(await other.send(alice, "to the phone"))
        (at_phone,) = await spoken(phone, 1)
        with pytest.raises(DeviceRevoked):
            await after_all(tmp_path / "laptop")
        await phone.revoke_device(2)  # once more is harmless
        with pytest.raises(DeviceUnknown):
            await phone.revoke_device(9)

    assert at_phone.text == "to the phone"


async def after_all(profile: Path) -> None:
    """Go on with a device that was revoked."""
    async with Client.connect(profile) as laptop:
        message = await laptop.send(bytes(16), "still here")
        await laptop.accepted(message)


async def test_devices_have_names_that_the_mesh_cannot_read(
    mesh: Mesh, phone: Client, tmp_path: Path
) -> None:
    async with laptop_of(phone, tmp_path / "laptop", mesh) as laptop:
        await laptop.rename_device(1, "phone ☕")
        named = [(one.device_id, one.name) for one in await phone.devices()]
        with pytest.raises(DeviceUnknown):
            await phone.rename_device(9, "nobody's")

    assert named == [(1, "phone ☕"), (2, "laptop")]


async def test_an_answer_that_somebody_else_forged_links_nothing(
    mesh: Mesh, phone: Client, tmp_path: Path
) -> None:
    mallory = await register(mesh.gateway_addresses[0])
    shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    linking = asyncio.create_task(
        Client.link(tmp_path / "new", gateways=mesh.gateway_addresses, show=shown.set_result)
    )
    address = LinkCode.read(await shown).address
    # To an address that was seen, but without the key beside it.
    forged = LinkCode(address, curve.generate().public).seal(LinkSecret(user_id=mallory.user_id))
    await leave(mesh, mallory, address, forged)

    with pytest.raises(LinkFailed, match="not written to this device"):
        await linking
    with pytest.raises(LinkFailed, match="answered before"):
        await phone.link_device(await shown)


async def leave(mesh: Mesh, sender: Account, address: bytes, ciphertext: bytes) -> None:
    """Leave something at an address, as any account can."""
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        request = device_pb2.SendProvisioningRequest(address=address, ciphertext=ciphertext)
        stub = device_pb2_grpc.DeviceServiceStub(channel)
        await stub.SendProvisioning(request, metadata=sender.metadata, timeout=10)


async def test_a_link_is_good_once(phone: Client, calls: IdentityCalls) -> None:
    invitation = Invitation()
    await phone.link_device(str(invitation.code))
    secret = await device_calls.invited(calls, invitation)
    await join(calls, secret)

    with pytest.raises(LinkFailed, match="too old, or was used"):
        await join(calls, secret)
    with pytest.raises(LinkFailed, match="answered before"):
        await phone.link_device(str(invitation.code))


async def test_a_link_is_good_for_two_minutes(
    mesh: Mesh, phone: Client, calls: IdentityCalls
) -> None:
    invitation = Invitation()
    await phone.link_device(str(invitation.code))
    secret = await device_calls.invited(calls, invitation)
    lasts = "SELECT expires_at - clock_timestamp() AS lasts FROM link_token WHERE user_id = $1"
    (lasting,) = await on_each_shard(mesh, lasts, phone.user_id)
    age = "UPDATE link_token SET expires_at = clock_timestamp() WHERE user_id = $1"
    await on_each_shard(mesh, age, phone.user_id)

    with pytest.raises(LinkFailed, match="too old, or was used"):
        await join(calls, secret)

    assert timedelta(seconds=100) < lasting["lasts"] <= timedelta(minutes=2)
    assert [one.device_id for one in await phone.devices()] == [1]


async def test_a_code_that_nobody_scans_ends(
    calls: IdentityCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_calls, "_WAIT_SECONDS", 0.3)

    with pytest.raises(LinkFailed, match="nobody has scanned"):
        await device_calls.invited(calls, Invitation())


async def test_an_account_has_at_most_ten_devices(phone: Client, calls: IdentityCalls) -> None:
    for _ in range(9):
        invitation = Invitation()
        await phone.link_device(str(invitation.code))
        await join(calls, await device_calls.invited(calls, invitation))

    with pytest.raises(TooManyDevices):
        await phone.link_device(str(Invitation().code))

    assert len(await phone.devices()) == 10


async def join(calls: IdentityCalls, secret: LinkSecret) -> None:
    """Become a device of the account, with a new key."""
    keys = published(new_keys(curve.pair_of(secret.identity_private_key)))
    await device_calls.link(calls, secret, Ed25519PrivateKey.generate(), keys)
