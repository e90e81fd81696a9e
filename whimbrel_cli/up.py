"""`whimbrel up`: a whole mesh on this machine, with one live line a process, until Ctrl-C."""

import asyncio
import contextlib
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mesh.settings import load
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.settings import StackSettings
from whimbrel_cli.up_view import View, choose_view

DEFAULT_DATA = Path(".whimbrel")

_HOW_TO_CHAT = """
The mesh is up. In two other terminals:

  whimbrel register alice{data} && whimbrel chat --as alice bob{data}
  whimbrel register bob{data} && whimbrel chat --as bob alice{data}

Ctrl-C here takes it all down; what was said stays.
"""


def up(
    *,
    gateways: Annotated[int, typer.Option(min=1, help="Gateway instances.")] = 2,
    message: Annotated[int, typer.Option(min=1, help="Message service instances.")] = 2,
    shards: Annotated[int, typer.Option(min=1, help="Shards: one database each.")] = 2,
    presence: Annotated[
        int, typer.Option(min=0, help="Presence instances; 0: nobody sees who is online.")
    ] = 1,
    media: Annotated[int, typer.Option(min=0, help="Media instances; 0: no files.")] = 1,
    data: Annotated[Path, typer.Option(help="Where everything is kept.")] = DEFAULT_DATA,
    push: Annotated[int, typer.Option(min=0, help="Push instances; 0: nobody is woken.")] = 1,
    kafka: Annotated[
        bool, typer.Option("--kafka", help="A broker too, and domain events on it.")
    ] = False,
    tls: Annotated[
        bool, typer.Option("--tls", help="Gateways end TLS, certified by the mesh's own authority.")
    ] = False,
    observe: Annotated[
        bool, typer.Option("--observe", help="Trace every message, for `whimbrel trace`.")
    ] = False,
) -> None:
    """Bring a mesh up on this machine and keep it up until Ctrl-C.

    A server that is there already is used instead of an own one when WHIMBREL_STACK_POSTGRES_DSN,
    WHIMBREL_STACK_REDIS_URL, WHIMBREL_STACK_ETCD_ENDPOINT, WHIMBREL_STACK_S3_URL or
    WHIMBREL_STACK_KAFKA_BOOTSTRAP name it. Own servers take free ports unless
    WHIMBREL_STACK_POSTGRES_PORT, _REDIS_PORT, _ETCD_PORT, _S3_PORT or _KAFKA_PORT set them.
    """
    settings = load(StackSettings)
    mesh = Mesh(
        data,
        gateways=gateways,
        message=message,
        shards=shards,
        presence=presence,
        media=media,
        push=push,
        kafka=kafka,
        tls=tls,
        observe=observe,
        settings=settings,
    )
    other_data = "" if data == DEFAULT_DATA else f" --data {shlex.quote(str(data))}"
    view = choose_view(Console(), greeting=_HOW_TO_CHAT.format(data=other_data))
    try:
        asyncio.run(_run(mesh, view))
    except StackError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None


async def _run(mesh: Mesh, view: View) -> None:
    try:
        await _show_and_hold(mesh, view)
    except* StackError as group:
        raise group.exceptions[0] from None


async def _show_and_hold(mesh: Mesh, view: View) -> None:
    async with asyncio.TaskGroup() as tasks:
        showing = tasks.create_task(view.show(mesh), name="show")
        holding = tasks.create_task(_hold(mesh, view), name="hold")
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A second one cuts the taking down short; then the kernel ends what is left.
            asyncio.get_running_loop().add_signal_handler(ending, holding.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await holding
        showing.cancel()


async def _hold(mesh: Mesh, view: View) -> None:
    async with mesh:
        view.greet(mesh)
        await asyncio.Event().wait()
