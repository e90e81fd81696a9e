"""Messages that are stored for a device that is away, and drained when it comes back."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from whimbrel_cli.bench.device import Broken, Chat, Device
from whimbrel_cli.bench.plan import Person, Plan
from whimbrel_cli.bench.telling import Tell, until

# What is accepted may still be on its way to the recipient's shard.
_FANNED_OUT = 1.0
_SECONDS = 120.0


async def store_and_drain(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """All but the last `rounds` people send to each of those in turn, who then comes online."""
    senders, absent = plan.people[: -plan.rounds], plan.people[-plan.rounds :]
    devices = [_device(plan, index, person) for index, person in enumerate(senders)]
    async with asyncio.TaskGroup() as tasks:
        for device in devices:
            await device.open()
            tasks.create_task(device.run(), name="sender")
        for index, person in enumerate(absent):
            await tell("storing")
            await _store(plan, devices, person)
            await tell("stored", plan.messages)
            receiver = _device(plan, index, person)
            await receiver.open()
            tasks.create_task(receiver.run(), name="receiver")
            await _drained(plan, devices, receiver)
            await tell("drained", plan.messages)
            await receiver.close()
        for device in devices:
            await device.close()
    return {"retries": sum(device.retries for device in devices)}


async def _store(plan: Plan, devices: Sequence[Device], person: Person) -> None:
    share = plan.messages // len(devices)

    def send_next(device: Device, chat: Chat) -> None:
        if chat.sent < share:
            device.send(chat)

    for device in devices:
        device.on_accepted = send_next
        chat = device.chat(person.user_id)
        for _ in range(min(plan.outstanding, share)):
            device.send(chat)
        await device.flush()
    chats = [device.chat(person.user_id) for device in devices]
    await until(lambda: all(chat.accepted == share for chat in chats), within=_SECONDS)
    await asyncio.sleep(_FANNED_OUT)


async def _drained(plan: Plan, devices: Sequence[Device], receiver: Device) -> None:
    async with asyncio.timeout(_SECONDS):
        await receiver.is_caught_up.wait()
    chats = [device.chat(receiver.user_id) for device in devices]
    await until(lambda: all(chat.is_settled for chat in chats), within=_SECONDS)
    received = sum(chat.received for chat in receiver.chats.values())
    if received != plan.messages:
        raise Broken(f"{plan.messages} were stored and {received} drained")


def _device(plan: Plan, index: int, person: Person) -> Device:
    address = plan.gateways[index % len(plan.gateways)]
    return Device(person, address, payload_bytes=plan.payload_bytes)
