"""`whimbrel register`: an account in the mesh and its folder on this machine."""

from typing import Annotated

import typer

from whimbrel_cli.person import Data, Gateways, person, run
from whimbrel_client import Client, ClientError
from whimbrel_client.ids import id_text


def register(
    handle: Annotated[str, typer.Argument(help="3 to 32 of a-z, 0-9, '_' and '.'.")],
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Make an account, or find it again with the key that is here."""
    who = person(handle, data, gateway)

    async def main() -> None:
        if not who.gateways:
            raise ClientError(f"no mesh is up on {who.data}: `whimbrel up`, or name a --gateway")
        account = await Client.register(
            who.profile, handle, gateways=who.gateways, protection=who.protection
        )
        print(f"{handle} is {id_text(account.user_id)}; its key is in {who.profile}")

    run(main)
