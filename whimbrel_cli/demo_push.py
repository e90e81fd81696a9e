"""The demo's push: a device that is away is woken, and learns only that there is something."""

import asyncio
import time

from rich.console import Console

from whimbrel_cli.demo_people import Cast
from whimbrel_cli.providers.arrivals import Arrival, short
from whimbrel_cli.pushes import arrived, simulated_token
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client

_WORDS = "are you there?"
_SECONDS = 60.0
_LOOK_SECONDS = 0.05


async def show_push(sender: Client, cast: Cast, mesh: Mesh, console: Console) -> bool:
    """Write to somebody who is away; tells whether the device was woken, and found the words."""
    await cast.register("carol", "+4915100000003")
    token = simulated_token("carol")
    async with cast.online("carol") as carol:
        await carol.client.push.by_apns(token)
    console.print("carol has gone; her phone has told the mesh how it is woken.")
    began = time.monotonic()
    async with asyncio.timeout(_SECONDS):
        await sender.accepted(await sender.send("carol", _WORDS))
        push = await _arrival(mesh, short(token.hex()))
    seconds = time.monotonic() - began
    is_silent = _WORDS not in push.payload and sender.handle not in push.payload
    async with asyncio.timeout(_SECONDS), cast.online("carol") as carol:
        await carol.has_heard(1)
    state = "woken" if is_silent else "[red]told too much[/]"
    console.print(
        f"{sender.handle} writes to her, and her phone is {state} after {seconds:.1f} s by"
        f" {push.payload}: she comes back and finds the words."
    )
    return is_silent


async def _arrival(mesh: Mesh, device: str) -> Arrival:
    while True:
        for arrival in arrived(mesh.data):
            if arrival.device == device:
                return arrival
        await asyncio.sleep(_LOOK_SECONDS)
