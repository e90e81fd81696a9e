"""`whimbrel lock`: the PIN without which a number's account goes to no new device."""

from typing import Annotated

import typer

from whimbrel_cli.person import As, Data, Gateways, Person, person, run

Pin = Annotated[
    str,
    typer.Option(
        help="The PIN; empty: no lock any more.",
        envvar="WHIMBREL_PIN",
        prompt="PIN",
        hide_input=True,
        confirmation_prompt=True,
        prompt_required=True,
        show_default=False,
    ),
]


def lock(*, as_: As, pin: Pin, gateway: Gateways = None, data: Data = None) -> None:
    """Let nobody register your number again who does not know a PIN, even with a code."""
    who = person(as_, data, gateway)
    run(lambda: _lock(who, pin))


async def _lock(who: Person, pin: str) -> None:
    async with who.client() as client:
        await client.set_registration_lock(pin)
    print("the number is locked" if pin else "the number is not locked")
