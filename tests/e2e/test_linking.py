"""One person with two devices on the real mesh: both have every message, encrypted for each."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client, DeviceRevoked, Message, Profile

GREETING = "are you there?"


@asynccontextmanager
async def laptop_of(phone: Client, profile: Path, mesh: Mesh) -> AsyncIterator[Client]:
    """Link a second device and connect it."""
    loop = asyncio.get_running_loop()
    code: asyncio.Future[str] = loop.create_future()
    linking = asyncio.create_task(
        Client.link(profile, gateways=mesh.gateway_addresses, show=code.set_result)
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

    assert at_phone.text == "to the phone"
