"""`whimbrel register`: an account in the mesh and its folder on this machine."""

from typing import Annotated

import typer

from whimbrel_cli.person import Ca, Data, Gateways, Person, person, run
from whimbrel_client import (
    CallFailed,
    Client,
    ClientError,
    CodeInvalid,
    NumberTaken,
    RateLimited,
    RegistrationLocked,
    id_text,
)

Number = Annotated[
    str, typer.Option(help="Your phone number, as +49…; a code is sent to it.", metavar="NUMBER")
]
Pin = Annotated[str, typer.Option(help="Of the registration lock.", envvar="WHIMBREL_PIN")]


def register(
    handle: Annotated[str, typer.Argument(help="3 to 32 of a-z, 0-9, '_' and '.'.")],
    *,
    number: Number = "",
    code: Annotated[str, typer.Option(help="The code, if it was sent already.")] = "",
    pin: Pin = "",
    gateway: Gateways = None,
    ca: Ca = None,
    data: Data = None,
) -> None:
    """Make an account, or find it again with the key that is here.

    With a number, also get the number's account back on a new device: the old ones are unlinked.
    """
    who = person(handle, data, gateway, ca)
    run(lambda: _register(who, number, code, pin))


async def _register(who: Person, number: str, code: str, pin: str) -> None:
    try:
        if number and not code:
            await Client.request_code(number, gateways=who.demand_gateways(), ca=who.ca)
            code = _asked(f"The code that was sent to {number} (here: whimbrel codes)")
        await _register_with(who, number, code, pin)
    except CallFailed as error:
        raise _explained(error) from error


async def _register_with(who: Person, number: str, code: str, pin: str) -> None:
    try:
        account = await Client.register(
            who.profile,
            who.handle,
            gateways=who.demand_gateways(),
            ca=who.ca,
            number=number,
            code=code,
            pin=pin,
            protection=who.protection,
        )
    except RegistrationLocked:
        if pin:
            raise
        await _register_with(who, number, code, _asked("The number is locked. Its PIN"))
    else:
        print(f"{who.handle} is {id_text(account.user_id)}; its key is in {who.profile}")


def _asked(what: str) -> str:
    answer: str = typer.prompt(what, err=True)
    return answer.strip()


def _explained(error: CallFailed) -> ClientError:
    """What a person can do about it."""
    match error:
        case CodeInvalid():
            told = "the code is wrong, used or too old; without --code another is sent"
        case NumberTaken():
            told = f"the number has an account: whimbrel register {error.handle} --number …"
        case RegistrationLocked():
            told = "the number is locked with another PIN"
        case RateLimited(retry_after=after) if after is not None:
            told = (
                f"too many codes or PINs; again in {after.total_seconds():,.0f} s, or with --code"
            )
        case CallFailed(metadata={"allowed": allowed}):
            told = f"{error}: allowed is {allowed}"
        case _:
            return error
    return ClientError(told if error.reason in told else f"{told} ({error.reason})")
