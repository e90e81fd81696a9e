"""`whimbrel channels`: make channels, follow them by their links, post and read."""

import json
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whimbrel_cli.person import As, Data, Gateways, Person, person, run
from whimbrel_cli.wording import printable
from whimbrel_client import Client, ClientError
from whimbrel_client.channels.model import Channel, Post
from whimbrel_client.ids import id_text

T = TypeVar("T")

_ID_BYTES = 16

channels = typer.Typer(
    no_args_is_help=True, help="Make channels, follow them by their links, post and read."
)

Which = Annotated[str, typer.Argument(help="The channel: its name, or its id from the list.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@channels.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name; who has the link can read it.")],
    *,
    as_: As,
    about: Annotated[str, typer.Option(help="What it is about.")] = "",
    keep_days: Annotated[int, typer.Option(min=1, max=90, help="Days that posts stay.")] = 30,
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Make a channel and print its link."""

    async def work(client: Client) -> tuple[Channel, str]:
        channel = await client.channels.create(name, about, retention=timedelta(days=keep_days))
        return channel, await client.channels.link(channel.channel_id)

    channel, link = _with(person(as_, data, gateway), work)
    print(_json({**_fields(channel), "link": link}) if as_json else link)


@channels.command("list")
def list_(*, as_: As, as_json: Json = False, gateway: Gateways = None, data: Data = None) -> None:
    """List the channels that you follow."""
    found = _with(person(as_, data, gateway), lambda client: client.channels.followed())
    if as_json:
        print(_json([_fields(channel) for channel in found]))
        return
    table = Table("name", "you are", "followers", "read", "id", box=None, pad_edge=False)
    for one in found:
        read, role = f"{one.read_up_to}/{one.last_seq}", one.role.name.lower()
        name = escape(printable(one.name))
        table.add_row(name, role, f"{one.subscribers:,}", read, id_text(one.channel_id))
    Console().print(table)


@channels.command()
def subscribe(
    link: Annotated[str, typer.Argument(help="The channel's link.")],
    *,
    as_: As,
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Follow a channel."""
    channel = _with(person(as_, data, gateway), lambda client: client.channels.subscribe(link))
    print(_json(_fields(channel)) if as_json else f"you follow {printable(channel.name)}")


@channels.command()
def leave(channel: Which, *, as_: As, gateway: Gateways = None, data: Data = None) -> None:
    """Follow a channel no more."""

    async def work(client: Client) -> None:
        await client.channels.unsubscribe((await _named(client, channel)).channel_id)

    _with(person(as_, data, gateway), work)


@channels.command()
def post(
    channel: Which,
    words: Annotated[str, typer.Argument(help="What to post.")],
    *,
    as_: As,
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Post to a channel of yours."""
    post_id = os.urandom(_ID_BYTES)

    async def work(client: Client) -> int:
        chosen = await _named(client, channel)
        return await client.channels.post(chosen.channel_id, words, post_id=post_id)

    seq = _with(person(as_, data, gateway), work)
    told = {"seq": seq, "post_id": id_text(post_id)}
    print(_json(told) if as_json else f"posted as {seq}")


@channels.command()
def read(
    channel: Which,
    *,
    as_: As,
    all_: Annotated[bool, typer.Option("--all", help="Also what was read before.")] = False,
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Print the posts that you have not read, and mark them as read."""

    async def work(client: Client) -> list[Post]:
        chosen = await _named(client, channel)
        after = 0 if all_ else chosen.read_up_to
        posts = [p for p in await client.channels.stored(chosen.channel_id) if p.seq > after]
        if posts:
            await client.channels.mark_read(chosen.channel_id, posts[-1].seq)
        return posts

    posts = _with(person(as_, data, gateway), work)
    if as_json:
        print(_json([_post_fields(one) for one in posts]))
        return
    for one in posts:
        words = "(its key is not known: follow the channel's new link)"
        if one.content is not None:
            words = printable(one.text or "(newer than this version)")
        print(f"{one.posted_at.astimezone():%Y-%m-%d %H:%M}  {words}")


@channels.command()
def link(
    channel: Which,
    *,
    as_: As,
    new: Annotated[
        bool, typer.Option("--new", help="Give it another key: the old link ends.")
    ] = False,
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Print what lets others follow a channel."""

    async def work(client: Client) -> str:
        channel_id = (await _named(client, channel)).channel_id
        if new:
            return await client.channels.rotate_key(channel_id)
        return await client.channels.link(channel_id)

    text = _with(person(as_, data, gateway), work)
    print(_json({"link": text}) if as_json else text)


def _with(who: Person, work: Callable[[Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with who.client() as client:
            return await work(client)

    return run(main)


async def _named(client: Client, name: str) -> Channel:
    found = await client.channels.followed()
    matching = [one for one in found if id_text(one.channel_id) == name.upper()]
    matching = matching or [one for one in found if one.name == name]
    if not matching:
        raise ClientError(f"you follow no channel called {name}")
    if len(matching) > 1:
        raise ClientError(f"several channels are called {name}: use an id from the list")
    return matching[0]


def _fields(channel: Channel) -> dict[str, Any]:
    return {
        "id": id_text(channel.channel_id),
        "name": channel.name,
        "about": channel.description,
        "role": channel.role.name.lower(),
        "followers": channel.subscribers,
        "last_seq": channel.last_seq,
        "read_up_to": channel.read_up_to,
    }


def _post_fields(post: Post) -> dict[str, Any]:
    return {
        "seq": post.seq,
        "post_id": id_text(post.post_id),
        "posted_at": post.posted_at.isoformat(),
        "text": post.text,
    }


def _json(what: object) -> str:
    return json.dumps(what, indent=2, ensure_ascii=False)
