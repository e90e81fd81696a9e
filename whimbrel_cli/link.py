"""`whimbrel link`: makes this machine a further device of somebody's account."""

import sys
from typing import Annotated

import segno
import typer

from whimbrel_cli.history import show_moving
from whimbrel_cli.person import Ca, Data, Gateways, Person, person, run
from whimbrel_client import Client

Name = Annotated[
    str, typer.Argument(help="What this device is called: in your list of devices, and for --as.")
]


def link(name: Name, gateway: Gateways = None, ca: Ca = None, data: Data = None) -> None:
    """Show a code that your first device scans within two minutes, and be linked to its account.

    From then on this device gets what comes and what the others send; then, if the first device
    offers it, what was said before. Interrupted, that goes on whenever both are connected.
    """
    who = person(name, data, gateway, ca)
    run(lambda: _link(who))


async def _link(who: Person) -> None:
    account = await Client.link(
        who.profile,
        gateways=who.demand_gateways(),
        ca=who.ca,
        show=_show,
        name=who.handle,
        protection=who.protection,
    )
    name = who.handle
    print(f"{name} is device {account.device_id} of {account.handle}; use --as {name}", flush=True)
    async with who.client() as client:
        await show_moving(client)


def _show(code: str) -> None:
    if sys.stdout.isatty():
        segno.make_qr(code, error="l").terminal(compact=True)
    print(f"On your first device: whimbrel devices link --as HANDLE {code}", flush=True)
