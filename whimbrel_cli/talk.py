"""The commands by which people talk, as one piece for `whimbrel_cli.main`."""

import typer

from whimbrel_cli.channels import channels
from whimbrel_cli.chat import chat
from whimbrel_cli.devices import devices
from whimbrel_cli.groups import groups
from whimbrel_cli.link import link
from whimbrel_cli.listen import listen
from whimbrel_cli.lock import lock
from whimbrel_cli.presence import presence
from whimbrel_cli.register import register
from whimbrel_cli.report import report
from whimbrel_cli.send import send
from whimbrel_cli.store import store


def register_commands(app: typer.Typer) -> None:
    """Add them to the application."""
    for command in (register, lock, send, listen, chat, link, report):
        app.command()(command)
    app.add_typer(devices, name="devices")
    app.add_typer(presence, name="presence")
    app.add_typer(channels, name="channels")
    app.add_typer(store, name="store")
    app.add_typer(groups, name="groups")
