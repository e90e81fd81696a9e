"""`whimbrel store`: what protects the local store of a device."""

from typing import Annotated

import typer

from whimbrel_cli.person import As, Data, person, run
from whimbrel_client import Client, Protection

store = typer.Typer(no_args_is_help=True, help="Protect what this device keeps.")


@store.command()
def passphrase(
    *,
    as_: As,
    none: Annotated[
        bool, typer.Option("--none", help="No passphrase any more: the key ring, or a file.")
    ] = False,
    data: Data = None,
) -> None:
    """Give the store a passphrase, another one, or none; the present one is in WHIMBREL_PASSPHRASE.

    Everything is encrypted anew. Whoever forgets the passphrase has lost the store.
    """
    who = person(as_, data, None)
    new = (
        None if none else typer.prompt("New passphrase", hide_input=True, confirmation_prompt=True)
    )
    run(lambda: Client.change_protection(who.profile, now=who.protection, then=Protection(new)))
    print("the store has no passphrase now" if none else "the store has a new passphrase now")
