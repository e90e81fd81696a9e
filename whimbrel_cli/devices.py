"""`whimbrel devices`: the devices of one's account, as any of them sees them."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whimbrel_cli.history import History
from whimbrel_cli.person import As, Data, Gateways, Person, person, run
from whimbrel_cli.wording import printable
from whimbrel_client import Client, LinkedDevice

devices = typer.Typer(no_args_is_help=True, help="List, link, name and unlink your devices.")

Device = Annotated[int, typer.Argument(help="Its number in the list; 1 is the first device.")]


@devices.command("list")
def list_(
    *,
    as_: As,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """List your devices."""
    who = person(as_, data, gateway)
    found, own = run(lambda: _listed(who))
    if as_json:
        print(json.dumps([_fields(device, own) for device in found], indent=2, ensure_ascii=False))
    else:
        Console().print(_table(found, own))


@devices.command()
def link(
    code: Annotated[str, typer.Argument(help="What the new device shows.")],
    *,
    as_: As,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    history: History = "30d",  # type: ignore[assignment]  # parsed
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Hand your account to the device that shows the code, then what was said before."""
    if not yes:
        typer.confirm(f"Whoever has that device will read and write as {as_}. Go on?", abort=True)
    who = person(as_, data, gateway)
    run(lambda: _link(who, code, history))


@devices.command()
def rename(
    device: Device,
    name: Annotated[str, typer.Argument(help="Its new name; empty: none.")],
    *,
    as_: As,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Name a device; only your devices can read it."""
    who = person(as_, data, gateway)
    run(lambda: _do(who, lambda client: client.rename_device(device, name)))


@devices.command()
def revoke(device: Device, *, as_: As, gateway: Gateways = None, data: Data = None) -> None:
    """Unlink a device: it gets and sends nothing from now on, and keeps what it has."""
    who = person(as_, data, gateway)
    run(lambda: _do(who, lambda client: client.revoke_device(device)))


async def _link(who: Person, code: str, history: timedelta) -> None:
    async with who.client() as client:
        await client.link_device(code, history=history)
        print("handed over; it is linked once it is in the list of your devices", flush=True)
        if history:
            print("Its history follows; interrupted, it goes on when both are connected.")
            await client.history.taken()


async def _do(who: Person, what: Callable[[Client], Awaitable[None]]) -> None:
    async with who.client() as client:
        await what(client)


async def _listed(who: Person) -> tuple[list[LinkedDevice], int]:
    async with who.client() as client:
        return await client.devices(), client.device_id


def _fields(device: LinkedDevice, own: int) -> dict[str, object]:
    at = {
        name: None if moment is None else moment.isoformat()
        for name, moment in (("linked_at", device.linked_at), ("last_seen_at", device.last_seen_at))
    }
    return {**asdict(device), **at, "is_this": device.device_id == own}


def _table(found: list[LinkedDevice], own: int) -> Table:
    table = Table("", "name", "linked", "last seen", box=None, pad_edge=False)
    for device in found:
        this = " (this one)" if device.device_id == own else ""
        name = printable(device.name) or ("first device" if device.device_id == 1 else "")
        table.add_row(
            str(device.device_id),
            escape(name + this),
            _day(device.linked_at),
            _day(device.last_seen_at),
        )
    return table


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d}"
