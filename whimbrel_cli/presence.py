"""`whimbrel presence`: see who is online, and choose who sees you."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, TypeVar

import typer

from whimbrel_cli.person import As, Data, Gateways, Person, account_of, person, run
from whimbrel_cli.screen.life import Life
from whimbrel_client import id_text
from whimbrel_client.presence import LastSeen, Presence, VisibleTo

E = TypeVar("E", bound=Enum)


def _one_of(kind: type[E]) -> Callable[[str], E]:
    """Reads one of an enumeration's names."""

    def read(text: str) -> E:
        try:
            return kind[text.upper()]
        except KeyError:
            allowed = ", ".join(one.name.lower() for one in kind)
            raise typer.BadParameter(f"{text!r} is none of {allowed}") from None

    return read


presence = typer.Typer(
    no_args_is_help=True, help="See who is online, and choose who sees that of you."
)


@presence.command()
def watch(
    whom: Annotated[str, typer.Argument(help="A handle, or a phone number.")],
    *,
    as_: As,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many lines.")] = None,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Print whether somebody is online, was last seen, and writes to you, as it changes."""
    who = person(as_, data, gateway)
    run(lambda: _watch(who, whom, as_json=as_json, count=count))


@presence.command()
def show(
    *,
    as_: As,
    to: Annotated[
        VisibleTo | None,
        typer.Option(
            parser=_one_of(VisibleTo),
            metavar="everyone|contacts|nobody",
            help="Who sees it; you see that of nobody who may not see yours.",
        ),
    ] = None,
    last_seen: Annotated[
        LastSeen | None,
        typer.Option(
            parser=_one_of(LastSeen),
            metavar="minute|hour|day",
            help="How exactly they see when you were last there.",
        ),
    ] = None,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Choose who sees whether you are online, and when you last were."""
    who = person(as_, data, gateway)
    run(lambda: _show(who, to, last_seen))


async def _watch(who: Person, whom: str, *, as_json: bool, count: int | None) -> None:
    async with who.client() as client:
        peer, life = await account_of(client, whom), Life()
        async with contextlib.aclosing(client.presences.watch(peer)) as signs:
            async for sign in signs:
                life.note(sign)
                if as_json:
                    name = "presence" if isinstance(sign, Presence) else "writing"
                    state = sign.state if isinstance(sign, Presence) else sign.activity
                    line = {"user_id": id_text(peer), name: state.name.lower()}
                    if isinstance(sign, Presence) and sign.last_seen is not None:
                        line["last_seen"] = sign.last_seen.isoformat()
                    print(json.dumps(line), flush=True)
                else:
                    words = life.words({}, now=datetime.now(UTC), zone=None)
                    print(f"{whom}: {words or 'hidden'}", flush=True)
                if count is not None and (count := count - 1) == 0:
                    return


async def _show(who: Person, to: VisibleTo | None, last_seen: LastSeen | None) -> None:
    async with who.client() as client:
        await client.presences.show_to(to, last_seen)
    print("chosen")
