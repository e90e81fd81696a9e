"""The demo's group: three people, ticks, and one who is removed and reads no more."""

import asyncio
from collections.abc import Callable

from rich.console import Console

from whimbrel_cli.demo_people import Cast, Talker
from whimbrel_client import Client
from whimbrel_client.groups.model import Tally

_SECONDS = 60.0
_NAME = "Night hike"
_FOR_ALL, _FOR_TWO = "who comes?", "now it is only us"


async def show_group(alice: Talker, bob: Talker, cast: Cast, console: Console) -> bool:
    """Write to a group before and after somebody is removed; tells whether the right ones read."""
    await cast.register("dave", "+4915100000004")
    async with asyncio.timeout(_SECONDS), cast.online("dave") as dave:
        client, members = alice.client, [bob.client.user_id, dave.client.user_id]
        group = await client.groups.create(_NAME, members)
        first = await _counted(client, group.group_id, _FOR_ALL, lambda one: one.read_by == 2)
        heard = {one.text for one in dave.heard_from(alice)}
        await client.groups.remove(group.group_id, dave.client.user_id)
        second = await _counted(client, group.group_id, _FOR_TWO, lambda one: one.read_by == 1)
        after = {one.text for one in dave.heard_from(alice)}
    is_right = _FOR_ALL in heard and _FOR_TWO not in after
    console.print(
        f"alice makes a group with bob and dave: her words are delivered to {first.delivered_to}"
        f" and read by {first.read_by} of {first.audience}. She removes dave: her next words are"
        f" read by {second.read_by} of {second.audience}, and dave"
        f" {'never sees them' if is_right else '[red]sees the wrong ones[/]'}."
    )
    return is_right


async def _counted(
    client: Client, group_id: bytes, words: str, is_enough: Callable[[Tally], bool]
) -> Tally:
    """Say something, and return how many have it once it is enough."""
    message = await client.send(group_id, words)
    async for _ in client.receipts():
        tally = await client.groups.tally(message)
        if tally is not None and is_enough(tally):
            return tally
    raise AssertionError("the receipts have ended")
