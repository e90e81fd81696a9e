"""The terminal client on the real mesh: two people, each at a screen."""

import secrets
from pathlib import Path

from tests.whimbrel_cli.screen.screen import screen_of
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client

READ = "#4db5ff"


async def test_two_people_talk_on_their_screens_and_the_ticks_turn_blue(
    mesh: Mesh, tmp_path: Path
) -> None:
    alice, bob = (f"p{secrets.token_hex(8)}" for _ in range(2))
    for handle in (alice, bob):
        await Client.register(tmp_path / handle, handle, gateways=mesh.gateway_addresses)

    async with (
        Client.connect(tmp_path / alice) as left,
        Client.connect(tmp_path / bob) as right,
        screen_of(left, await left.user_named(bob)) as at_alice,
        screen_of(right) as at_bob,
    ):
        await at_alice.write("are you there?")
        await at_bob.until(lambda: at_bob.says("are you there?"))
        await at_alice.until(lambda: READ in at_alice.bubbles[0][2])
        await at_bob.write("I am")
        await at_alice.until(lambda: at_alice.says("I am"))
        await at_bob.until(lambda: READ in at_bob.bubbles[-1][2])
        connected = [screen.shown("#connection") for screen in (at_alice, at_bob)]

    assert all(any(address in shown for address in mesh.gateway_addresses) for shown in connected)
