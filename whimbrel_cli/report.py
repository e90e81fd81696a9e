"""`whimbrel report`: tell the operators about somebody, with no more words than one agrees to."""

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from whimbrel_cli.person import As, Data, Gateways, Person, account_of, person, run
from whimbrel_cli.wording import words_of
from whimbrel_client import Message, ReportReason

_MOST = 20


class Reason(StrEnum):
    """A ReportReason as it is typed."""

    SPAM = "spam"
    ABUSE = "abuse"
    FRAUD = "fraud"
    ILLEGAL = "illegal"
    OTHER = "other"


def report(
    to: Annotated[str, typer.Argument(help="Who is reported: a handle, or a number as +49…")],
    *,
    as_: As,
    reason: Annotated[Reason, typer.Option(help="Why.")],
    last: Annotated[
        int, typer.Option(min=0, max=_MOST, help="Show the operators their last so many messages.")
    ] = 0,
    is_agreed: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Report somebody to the operators of the mesh, after saying what they will see."""
    who = person(as_, data, gateway)
    run(lambda: _report(who, to, ReportReason[reason.name], last, is_agreed=is_agreed))


async def _report(
    who: Person, to: str, reason: ReportReason, last: int, *, is_agreed: bool
) -> None:
    async with who.client() as client:
        user_id = await account_of(client, to)
        found = await client.last_of(user_id, last) if last else []
        shown = [message for message in found if message.text is not None]
        print(_told(client.handle, to, reason, shown))
        if not is_agreed and not await asyncio.to_thread(typer.confirm, "Report this?"):
            print("nothing was reported")
            raise typer.Exit(1)
        await client.report(user_id, reason, shown)
    print(f"{to} is reported")


def _told(own: str, to: str, reason: ReportReason, shown: Sequence[Message]) -> str:
    said = f"The operators of the mesh will see that {own} reports {to} for {reason.name.lower()}"
    if not shown:
        return f"{said}, and none of your messages."
    lines = (
        f"  {message.accepted_at.astimezone():%Y-%m-%d %H:%M}  {words_of(message)}"
        for message in shown
    )
    return "\n".join((f"{said}, and these messages, decrypted:", *lines))
