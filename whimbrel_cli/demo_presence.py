"""The demo's flip: somebody comes, writes and leaves, and who has the chat open sees it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from rich.console import Console

from whimbrel_cli.demo_people import Cast
from whimbrel_client import Client
from whimbrel_client.presence import Activity, Presence, PresenceState, Sign, Writing

_SECONDS = 30.0


async def show_presence(watcher: Client, cast: Cast, console: Console) -> bool:
    """Let carol come and go before who has the chat with her open; tells if all was seen."""
    carol_id = await watcher.user_named("carol")
    async with (
        asyncio.timeout(_SECONDS),
        contextlib.aclosing(watcher.presences.watch(carol_id)) as signs,
    ):
        await _seen(signs, _is(PresenceState.OFFLINE))
        began = time.monotonic()
        async with cast.online("carol") as carol:
            await _seen(signs, _is(PresenceState.ONLINE))
            seconds = time.monotonic() - began
            carol.client.presences.write(watcher.user_id)
            await _seen(signs, lambda sign: sign == Writing(carol_id, Activity.TYPING))
        left = await _seen(signs, _is(PresenceState.OFFLINE))
    console.print(
        f"{watcher.handle} has the chat with carol open, and sees her come, {1000 * seconds:.0f} ms"
        " after her phone is started, write, and leave."
    )
    return isinstance(left, Presence) and left.last_seen is not None


async def _seen(signs: AsyncIterator[Sign], is_it: Callable[[Sign], bool]) -> Sign:
    async for sign in signs:
        if is_it(sign):
            return sign
    raise EOFError("the client has ended")


def _is(state: PresenceState) -> Callable[[Sign], bool]:
    return lambda sign: isinstance(sign, Presence) and sign.state is state
