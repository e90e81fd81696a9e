"""The demo's channel: a post that comes live, and one that waited for who was away."""

import asyncio

from rich.console import Console

from whimbrel_client import Client

_SECONDS = 60.0
_WORDS = ("a whimbrel has left Georgia", "it has flown through a hurricane", "it has arrived")


async def show_channel(author: Client, reader: Client, console: Console) -> bool:
    """Post before and after the reader follows; tells whether all is read, once, in order."""
    async with asyncio.timeout(_SECONDS):
        channel = await author.channels.create("Shorebirds")
        await author.channels.post(channel.channel_id, _WORDS[0])
        await reader.channels.subscribe(await author.channels.link(channel.channel_id))
        for words in _WORDS[1:]:
            await author.channels.post(channel.channel_id, words)
        read: list[str | None] = []
        async for post in reader.channels.posts(channel.channel_id):
            read.append(post.text)
            if len(read) == len(_WORDS):
                break
    is_right = tuple(read) == _WORDS
    state = "reads all of it, in order" if is_right else "[red]reads something else[/]"
    console.print(
        f"{author.handle} posts to a channel before and after {reader.handle} follows its link;"
        f" {reader.handle} {state}."
    )
    return is_right
