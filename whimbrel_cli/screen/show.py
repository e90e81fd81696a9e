"""Starts the terminal client: on a mesh, or on a rehearsal for the picture in the README."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path

from whimbrel_cli.person import Person, account_of
from whimbrel_cli.screen.app import ChatApp
from whimbrel_cli.screen.rehearsal import Rehearsal
from whimbrel_client.payload import edit, reaction, reply

_SIZE = (96, 33)
# The picture shall fetch nothing.
_FONTS = re.compile(r"@font-face\s*{[^}]*}\s*")


async def show(who: Person, to: str | None, *, read_receipts: bool) -> None:
    """Talk on this terminal until the person quits; raises what ended the client before."""
    async with who.client(read_receipts=read_receipts) as client:
        peer = None if to is None else await account_of(client, to)
        app = ChatApp(client, peer=peer)
        with _log_to(who.profile / "chat.log"):
            failure = await app.run_async()
    if failure is not None:
        raise failure


async def take_picture() -> str:
    """The screen in the middle of a conversation, as SVG; always the same."""
    client = await _conversation()
    app = ChatApp(client, peer=client.people["bob"], zone=UTC)
    async with app.run_test(size=_SIZE) as pilot:
        # The script is told at once; then it is drawn.
        await pilot.pause()
        await app.draw()
        await pilot.pause()
        picture = app.export_screenshot(title="whimbrel chat --as alice bob")
    return _FONTS.sub("", picture)


async def _conversation() -> Rehearsal:
    client = Rehearsal("alice", "bob", "carol", "dave")
    client.hear("carol", "The ferry leaves at nine.")
    client.hear("carol", "Shall I get you a ticket?")
    client.hear("dave", "See you on Monday")
    client.read[client.people["dave"]] = 1
    asked = client.hear("bob", "Did it come through the storm?")
    told = await client.send("bob", reply(asked, "It did! 2,000 km, strait through the hurricane."))
    client.hear("bob", reaction(told, "🎉"))
    await client.send("bob", edit(told, "It did! 2,000 km, straight through the hurricane."))
    client.hear("bob", "And not one message lost?")
    await client.send("bob", "Not one. Two gateways died and Redis was flushed on the way.")
    praise = client.hear("bob", "Then it has earned its name 😄")
    await client.send("bob", reaction(praise, "👍"))
    await client.send("bob", "Look at the safety number when we meet: F2.")
    client.receive_receipt("bob", delivered=9, read=6)
    client.is_silent = True
    await client.send("bob", "This one is on its way …")
    return client


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Keep warnings off the screen."""
    root = logging.getLogger()
    before, file = root.handlers[:], logging.FileHandler(path, delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.handlers[:] = [file]
    try:
        yield
    finally:
        root.handlers[:] = before
        file.close()
