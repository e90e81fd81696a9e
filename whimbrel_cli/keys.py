"""`whimbrel keys`: the files of keys that sign and verify tokens, and their rotation.

Rotating without a refused token takes three steps, each rolled out before the next:

1. `whimbrel keys new next.json`, `whimbrel keys publish public.json now.json next.json`: whoever
   verifies gets public.json, which has both keys.
2. Whoever signs gets next.json.
3. Once every token of the old key has expired (an hour is more than enough), `whimbrel keys
   publish public.json next.json`: whoever verifies gets that.

The access tokens of devices are signed by svc_message (WHIMBREL_MESSAGE_TOKEN_KEY) and verified by
the gateways (WHIMBREL_GATEWAY_TOKEN_KEYS); those of services the other way round.
"""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mesh.keys import KeySet

keys = typer.Typer(no_args_is_help=True, help="Make and publish the keys that tokens need.")

New = Annotated[Path, typer.Argument(help="The file to make; it must not be there yet.")]
Sources = Annotated[
    list[Path], typer.Argument(help="Files of keys, private or public.", exists=True)
]


@keys.command()
def new(file: New) -> None:
    """Make a key that signs, in a file that only its owner can read."""
    try:
        KeySet.generate().save(file)
    except OSError as error:
        _give_up(error)


@keys.command()
def publish(file: New, sources: Sources) -> None:
    """Write what verifiers need of these keys: their public halves, in one file."""
    try:
        KeySet.joined([KeySet.load(source) for source in sources]).save_public(file)
    except (OSError, ValueError) as error:
        _give_up(error)


def _give_up(error: Exception) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(1)
