"""Devices that are connected and do nothing."""

import asyncio
from collections.abc import Mapping
from typing import Any

from whimbrel_cli.bench.device import Device
from whimbrel_cli.bench.plan import Plan
from whimbrel_cli.bench.telling import Tell

# The first few make a gateway load and allocate what it needs once, whoever connects.
_FIRST = 20
_SETTLE = 3.0


async def connect_and_wait(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """Connect a few, tell, connect all the others, tell again."""
    devices = [
        Device(
            person,
            plan.gateways[index % len(plan.gateways)],
            payload_bytes=plan.payload_bytes,
            ca=plan.ca,
        )
        for index, person in enumerate(plan.people)
    ]
    async with asyncio.TaskGroup() as tasks:
        for number, device in enumerate(devices):
            if number == _FIRST:
                await asyncio.sleep(_SETTLE)
                await tell("few", _FIRST)
            await device.open()
            tasks.create_task(device.run(), name="device")
        await asyncio.sleep(_SETTLE)
        await tell("all", len(devices))
        for device in devices:
            await device.close()
    return {}
