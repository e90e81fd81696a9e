"""`whimbrel listen`: what arrives, a line each, from where the last listening stopped."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from whimbrel_cli.files import save_file
from whimbrel_cli.person import As, Data, Gateways, Person, person, run
from whimbrel_cli.wording import printable, words_of
from whimbrel_client import CallFailed, Client, FileFailed, Message
from whimbrel_client.groups.model import GroupUnknown
from whimbrel_client.ids import id_text


def listen(
    *,
    as_: As,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    after: Annotated[
        int | None,
        typer.Option(help="Resume after this cursor; 0: from the start. [where it last stopped]"),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    mark_read: Annotated[bool, typer.Option("--read", help="Tell the senders: read.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Save files that come into this folder.", metavar="FOLDER")
    ] = None,
    gateway: Gateways = None,
    data: Data = None,
) -> None:
    """Print what arrives.

    With --json each line has its `cursor`: a program that keeps it together with what it has done,
    and resumes by --after, does everything exactly once. Without --after a line may be printed
    again after a crash, and none is left out.
    """
    who = person(as_, data, gateway)
    place = _Place(who.profile / "listened", after)
    run(lambda: _listen(who, place, as_json=as_json, count=count, mark_read=mark_read, save=save))


async def _listen(
    who: Person,
    place: "_Place",
    *,
    as_json: bool,
    count: int | None,
    mark_read: bool,
    save: Path | None,
) -> None:
    async with (
        who.client() as client,
        contextlib.aclosing(client.messages(after=place.cursor)) as messages,
    ):
        left, handles = count, dict[bytes, str | None]()
        async for message in messages:
            if message.sender not in handles:
                handles[message.sender] = await client.handle_of(message.sender)
            handle = handles[message.sender]
            group = await _group_of(client, message)
            told = _Told(message, handle, group, await _saved(client, message, save))
            print(_json(told) if as_json else _line(told), flush=True)
            place.keep(message.cursor)
            if mark_read:
                await client.mark_read(message.conversation, message.seq)
            left = None if left is None else left - 1
            if left == 0:
                break


class _Told(NamedTuple):
    """A message, with what a line says of it."""

    message: Message
    # The sender's, if it is known here.
    handle: str | None
    # What the group is called; None: a person wrote.
    group: str | None
    # Where its file is now.
    saved: Path | None


class _Place:
    """Where listening resumes."""

    def __init__(self, path: Path, after: int | None) -> None:
        self._path = path if after is None else None
        self.cursor = after or 0
        if after is None and path.exists():
            self.cursor = int(path.read_text())

    def keep(self, cursor: int) -> None:
        """All up to here is printed."""
        if self._path is not None:
            draft = self._path.with_suffix(".new")
            draft.write_text(str(cursor))
            draft.replace(self._path)


async def _saved(client: Client, message: Message, folder: Path | None) -> Path | None:
    """Where the message's file is now. One that cannot be had is told of, and listening goes on."""
    if folder is None:
        return None
    try:
        return await save_file(client, message, folder)
    except (FileFailed, CallFailed) as error:
        print(f"whimbrel: the file was not saved: {error}", file=sys.stderr)
        return None


async def _group_of(client: Client, message: Message) -> str | None:
    """What the group is called that the message was written to; None: to a person."""
    try:
        return (await client.groups.get(message.conversation)).name
    except GroupUnknown:
        return None


def _line(told: _Told) -> str:
    message = told.message
    time = message.accepted_at.astimezone().strftime("%H:%M:%S")
    group = "" if told.group is None else f" [{printable(told.group)}]"
    where = f" [saved as {told.saved}]" if told.saved else ""
    return f"{time}{group} {told.handle or id_text(message.sender)}: {words_of(message)}{where}"


def _json(told: _Told) -> str:
    message = told.message
    fields: dict[str, object] = {
        "cursor": message.cursor,
        "conversation": id_text(message.conversation),
        "seq": message.seq,
        "message_id": id_text(message.message_id),
        "sender": id_text(message.sender),
        "handle": told.handle,
        "group": told.group,
        "accepted_at": message.accepted_at.isoformat(),
        "kind": message.kind,
        "text": message.text,
    }
    if told.saved is not None:
        fields["file"] = str(told.saved)
    return json.dumps(fields, ensure_ascii=False)
