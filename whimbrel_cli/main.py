"""The `whimbrel` command: one typer application, a module a command."""

import typer

from whimbrel_cli.admin import admin
from whimbrel_cli.bench.command import bench
from whimbrel_cli.codes import codes
from whimbrel_cli.demo import demo
from whimbrel_cli.events import events
from whimbrel_cli.keys import keys
from whimbrel_cli.observing.command import trace
from whimbrel_cli.pushes import pushes
from whimbrel_cli.status import status
from whimbrel_cli.talk import register_commands
from whimbrel_cli.up import up

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(up)
app.command()(status)
app.command()(codes)
app.command()(pushes)
app.command()(trace)
app.command()(bench)
app.command()(events)
app.add_typer(keys, name="keys")
app.add_typer(admin, name="admin")
register_commands(app)
app.command()(demo)


@app.callback()
def whimbrel() -> None:
    """Whimbrel, a messenger: bring a mesh up, talk through it, measure it."""


def main() -> None:
    """Run the command line."""
    app()
