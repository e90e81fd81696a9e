"""Who a command acts as, and where the mesh is: what register, send, listen and chat share."""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from whimbrel_cli.stack.description import find_mesh
from whimbrel_cli.stack.errors import StackError
from whimbrel_client import Client, ClientError, DeviceRevoked, Protection, Unreachable

T = TypeVar("T")

_HERE = Path(".whimbrel")
_HOME = Path("~/.local/share/whimbrel")

FAILED = 1
UNREACHABLE = 3
INTERRUPTED = 130

As = Annotated[
    str, typer.Option("--as", help="Your handle, or the name of a linked device.", metavar="NAME")
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Where profiles are kept, and the mesh is described [.whimbrel, if there is one].",
        envvar="WHIMBREL_DATA",
    ),
]
Gateways = Annotated[
    list[str] | None,
    typer.Option(
        "--gateway",
        help="https://host:port, or host:port in the clear; repeat it for several.",
        metavar="ADDRESS",
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        help="Authorities, PEM, that certify the gateways, if none of gRPC's does; remembered.",
        metavar="FILE",
    ),
]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in one data directory: by the handle, or by the name of a linked device."""

    handle: str
    data: Path
    gateways: tuple[str, ...]
    ca: Path | None

    @property
    def profile(self) -> Path:
        """The folder of the account."""
        return self.data / "profiles" / self.handle

    def demand_gateways(self) -> tuple[str, ...]:
        """Where to go with a folder that knows no mesh yet. Raises ClientError."""
        if not self.gateways:
            raise ClientError(f"no mesh is up on {self.data}: `whimbrel up`, or name a --gateway")
        return self.gateways

    def client(self, **options: Any) -> AbstractAsyncContextManager[Client]:
        """The person's client, connected while the block lasts."""
        return Client.connect(
            self.profile,
            gateways=self.gateways,
            ca=self.ca,
            protection=self.protection,
            **options,
        )

    @property
    def protection(self) -> Protection:
        """What opens the local store: a passphrase, if the environment has one."""
        return Protection(os.environ.get("WHIMBREL_PASSPHRASE") or None)


def person(
    handle: str, data: Path | None, gateways: Sequence[str] | None, ca: Path | None = None
) -> Person:
    """Find the data directory and the gateways; those given win, then the mesh that is up there."""
    chosen = data or (_HERE if _HERE.exists() else _HOME.expanduser())
    if gateways:
        return Person(handle, chosen, tuple(gateways), ca)
    try:
        mesh = find_mesh(chosen)
    except (StackError, OSError):
        return Person(handle, chosen, (), ca)  # the account remembers where it was registered
    return Person(handle, chosen, mesh.client_addresses, ca or mesh.client_ca)


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a command; what may go wrong becomes a line and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="whimbrel: %(message)s", stream=sys.stderr)
    try:
        return asyncio.run(_awaited(main))
    except Unreachable as error:
        raise _exit(str(error), UNREACHABLE) from None
    except DeviceRevoked as error:
        raise _exit(f"this device is not linked, or not any more: {error}", FAILED) from None
    except ClientError as error:
        raise _exit(str(error), FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


class Finder(Protocol):
    """Finds accounts; a Client does."""

    async def user_named(self, handle: str) -> bytes: ...
    async def user_at(self, number: str) -> bytes: ...


# Finds whom a message is for, by what was typed.
Find = Callable[[Client, str], Awaitable[bytes]]


async def account_of(finder: Finder, to: str) -> bytes:
    """The account of a handle, or of a phone number. Raises HandleUnknown, Unreachable."""
    return await (finder.user_at(to) if to.startswith("+") else finder.user_named(to))


async def _awaited(main: Callable[[], Awaitable[T]]) -> T:
    try:
        return await main()
    except BaseExceptionGroup as group:
        raise _first_of(group) from group


def _first_of(error: BaseException) -> BaseException:
    """Look through the wrapping of a TaskGroup."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _exit(message: str, code: int) -> typer.Exit:
    print(f"whimbrel: {message}", file=sys.stderr)
    return typer.Exit(code)
