"""`whimbrel groups`: make groups, see who is in them, and change that."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whimbrel_cli.person import As, Data, Gateways, Person, account_of, person, run
from whimbrel_cli.wording import printable
from whimbrel_client import Client, ClientError
from whimbrel_client.groups.model import Group, GroupChange, Role
from whimbrel_client.ids import id_text

T = TypeVar("T")

_NAMES_SECONDS = 5.0

groups = typer.Typer(
    no_args_is_help=True,
    help="Make groups, see who is in them, and change that. `whimbrel send --group` writes to one.",
)

Which = Annotated[str, typer.Argument(help="The group: its name, or its id from the list.")]
Members = Annotated[list[str], typer.Argument(help="Handles, or numbers as +49….")]
Member = Annotated[str, typer.Argument(help="A handle, or a number as +49…")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Given(StrEnum):
    """The roles that can be given."""

    MUTED = "muted"
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"


@groups.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called; only members can read it.")],
    members: Annotated[list[str] | None, typer.Argument(help="Handles, or numbers.")] = None,
    *,
    as_: As,
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Make a group; you are its owner."""

    async def work(client: Client) -> Group:
        user_ids = [await account_of(client, one) for one in members or ()]
        group = await client.groups.create(name, user_ids)
        await client.groups.handed_out(group.group_id)
        return group

    _print(_with(person(as_, data, gateway), _shown(work)), as_json=as_json)


@groups.command("list")
def list_(*, as_: As, as_json: Json = False, gateway: Gateways = None, data: Data = None) -> None:
    """List your groups, as this device knows them."""
    found = _with(person(as_, data, gateway), lambda client: client.groups.all())
    if as_json:
        print(json.dumps([_summary(group) for group in found], indent=2, ensure_ascii=False))
        return
    table = Table("name", "members", "id", box=None, pad_edge=False)
    for group in found:
        count = str(len(group.members)) if group.is_member else "left"
        table.add_row(escape(_title(group)), count, id_text(group.group_id))
    Console().print(table)


@groups.command()
def show(
    group: Which, *, as_: As, as_json: Json = False, gateway: Gateways = None, data: Data = None
) -> None:
    """Show a group and its members."""
    work = _shown(lambda client: _named(client, group))
    _print(_with(person(as_, data, gateway), work), as_json=as_json)


@groups.command()
def add(
    group: Which, members: Members, *, as_: As, gateway: Gateways = None, data: Data = None
) -> None:
    """Add people, or let in who has asked; they read what is written from then on."""

    async def work(client: Client) -> None:
        group_id = (await _named(client, group)).group_id
        await client.groups.add(group_id, [await account_of(client, one) for one in members])
        await client.groups.handed_out(group_id)

    _with(person(as_, data, gateway), work)


@groups.command()
def remove(
    group: Which,
    member: Member,
    *,
    as_: As,
    ban: Annotated[bool, typer.Option("--ban", help="And let them not come back.")] = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Remove a member: they read nothing that is written from then on."""

    async def work(client: Client) -> None:
        group_id = (await _named(client, group)).group_id
        await client.groups.remove(group_id, await account_of(client, member), ban=ban)

    _with(person(as_, data, gateway), work)


@groups.command()
def role(
    group: Which,
    member: Member,
    role_: Annotated[Given, typer.Argument(metavar="ROLE", help="muted, member, admin or owner.")],
    *,
    as_: As,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Give a member another role; `owner` hands the group over, and makes you an admin."""

    async def work(client: Client) -> None:
        group_id, user_id = (await _named(client, group)).group_id, await account_of(client, member)
        if role_ is Given.OWNER:
            await client.groups.transfer(group_id, user_id)
        else:
            await client.groups.set_role(group_id, user_id, Role[role_.name])

    _with(person(as_, data, gateway), work)


@groups.command()
def rename(
    group: Which,
    name: Annotated[str, typer.Argument(help="Its new name.")],
    *,
    as_: As,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Give a group another name."""

    async def work(client: Client) -> None:
        await client.groups.rename((await _named(client, group)).group_id, name)

    _with(person(as_, data, gateway), work)


@groups.command()
def link(
    group: Which,
    *,
    as_: As,
    password: Annotated[str, typer.Option(help="Ask for a password, too.")] = "",
    days: Annotated[float | None, typer.Option(min=0.001, help="End after so long.")] = None,
    uses: Annotated[int, typer.Option(min=0, help="How many may come; 0: no bound.")] = 0,
    approval: Annotated[bool, typer.Option("--approval", help="Whoever comes only asks.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="End the link there is.")] = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Make a new link by which people can join; it ends the one before."""
    lasts = None if days is None else timedelta(days=days)

    async def work(client: Client) -> str:
        group_id = (await _named(client, group)).group_id
        if revoke:
            await client.groups.revoke_link(group_id)
            return ""
        return await client.groups.make_link(
            group_id, password=password, lasts=lasts, uses=uses, needs_approval=approval
        )

    print(_with(person(as_, data, gateway), work) or "nobody can join by the link any more")


@groups.command()
def join(
    link_: Annotated[str, typer.Argument(metavar="LINK", help="What `groups link` printed.")],
    *,
    as_: As,
    password: Annotated[str, typer.Option(help="If the link takes one.")] = "",
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Join a group by a link."""

    async def work(client: Client) -> Group | None:
        group = await client.groups.join(link_, password=password)
        if group is not None:
            await client.groups.handed_out(group.group_id)
        return group

    shown = _with(person(as_, data, gateway), _shown(work))
    if shown is None:
        print("null" if as_json else "an admin has to let you in")
    else:
        _print(shown, as_json=as_json)


@groups.command()
def requests(
    group: Which,
    *,
    as_: As,
    decline: Annotated[str, typer.Option(help="Do not let this person in.")] = "",
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """List who has come by the link and waits; `groups add` lets them in."""

    async def work(client: Client) -> list[str]:
        group_id = (await _named(client, group)).group_id
        if decline:
            await client.groups.decline(group_id, await account_of(client, decline))
        waiting = await client.groups.join_requests(group_id)
        return [await _name(client, one.user_id) for one in waiting]

    names = _with(person(as_, data, gateway), work)
    print(json.dumps(names) if as_json else "\n".join(names) or "nobody waits")


@groups.command()
def leave(group: Which, *, as_: As, gateway: Gateways = None, data: Data = None) -> None:
    """Leave a group; what was said stays on your devices."""

    async def work(client: Client) -> None:
        await client.groups.leave((await _named(client, group)).group_id)

    _with(person(as_, data, gateway), work)


@groups.command()
def changes(
    group: Which,
    *,
    as_: As,
    after: Annotated[int, typer.Option(min=0, help="Those above this revision.")] = 0,
    as_json: Json = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Tell what has changed in a group, at most 100 changes."""

    async def work(client: Client) -> list[tuple[GroupChange, str, list[str]]]:
        found = await client.groups.changes((await _named(client, group)).group_id, after=after)
        return [
            (one, await _name(client, one.actor), [await _name(client, who) for who in one.about])
            for one in found
        ]

    for change, actor, about in _with(person(as_, data, gateway), work):
        at, what = change.changed_at, change.kind.replace("_", " ") or "something new"
        if as_json:
            fields = {"revision": change.revision, "at": at.isoformat(), "actor": actor}
            print(json.dumps({**fields, "change": change.kind, "about": about}))
        else:
            whom = f" ({', '.join(about)})" if about else ""
            print(f"{change.revision:>4} {at.astimezone():%Y-%m-%d %H:%M} {actor}: {what}{whom}")


async def group_named(client: Client, which: str) -> bytes:
    """The group of a name or id. Raises ClientError."""
    await client.groups.caught_up()
    return (await _named(client, which)).group_id


Shown = tuple[Group, dict[str, Role]]


def _shown(
    work: Callable[[Client], Awaitable[Group | None]],
) -> Callable[[Client], Awaitable[Shown | None]]:
    """What the work finds, with the members' names."""

    async def found(client: Client) -> Shown | None:
        group = await work(client)
        if group is None:
            return None
        return group, {await _name(client, one): role for one, role in group.members.items()}

    return found


def _with(who: Person, work: Callable[[Client], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with who.client() as client:
            await client.groups.caught_up()
            return await work(client)

    return run(connected)


async def _named(client: Client, which: str) -> Group:
    found = await _found(client, which)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_NAMES_SECONDS):
            while not found and not all(one.name for one in await client.groups.all()):
                # A name comes in a message of its own, which may still be on its way.
                moved = client.groups.moved.next_ring()
                found = await _found(client, which)
                if not found:
                    await moved.wait()
    if len(found) > 1:
        raise ClientError(f"several groups are called {which!r}: name the id")
    if not found:
        raise ClientError(f"no group is called {which!r}: see `whimbrel groups list`")
    return found[0]


async def _found(client: Client, which: str) -> list[Group]:
    known = await client.groups.all()
    by_id = [one for one in known if which.upper() == id_text(one.group_id)]
    return by_id or [one for one in known if one.name == which]


async def _name(client: Client, user_id: bytes) -> str:
    handle = await client.handle_of(user_id)
    return printable(handle) if handle else id_text(user_id)


def _title(group: Group) -> str:
    return printable(group.name) or "(name not known yet)"


def _summary(group: Group) -> dict[str, object]:
    return {
        "id": id_text(group.group_id),
        "name": group.name,
        "description": group.description,
        "is_member": group.is_member,
        "revision": group.revision,
        "member_count": len(group.members),
    }


def _print(shown: Shown | None, *, as_json: bool) -> None:
    assert shown is not None  # noqa: S101  # a group was found
    group, members = shown
    if as_json:
        roles = {name: role.name.lower() for name, role in members.items()}
        print(json.dumps({**_summary(group), "members": roles}, indent=2, ensure_ascii=False))
        return
    print(f"{_title(group)}  {id_text(group.group_id)}")
    for name, role in sorted(members.items(), key=lambda item: (-item[1], item[0])):
        print(f"  {name}  {role.name.lower()}")
