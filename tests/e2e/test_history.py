"""What was said before a device was linked moves to it, on the real mesh, whatever dies."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from tests.e2e.shards import on_each_shard
from tests.e2e.test_linking import reached
from tests.faults.town import eventually
from whimbrel.content.v1.content_pb2 import Content, Text
from whimbrel.content.v1.history_pb2 import History, HistoryConversation, HistoryMessage
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client, HistoryProgress
from whimbrel_client.crypto.stored_sender_keys import load_reader, load_sender_key
from whimbrel_client.payload import edit
from whimbrel_client.sessions import DeviceId

FOR_EVER = timedelta.max


class Line(NamedTuple):
    """A message as a person sees it."""

    seq: int
    sender: bytes
    text: str | None


async def link(phone: Client, profile: Path, mesh: Mesh, *, history: timedelta = FOR_EVER) -> None:
    """Make the folder a device of the account."""
    shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            Client.link(profile, gateways=mesh.gateway_addresses, show=shown.set_result)
        )
        await phone.link_device(await shown, history=history)


async def complete(laptop: Client) -> None:
    """Wait until it has the whole history."""
    async with asyncio.timeout(30):
        async for _ in laptop.history.progress():
            pass


async def conversation(client: Client, peer: bytes) -> list[Line]:
    """All messages of the conversation that the device has now, in order."""
    lines = [
        Line(one.outcome.seq or 0, client.user_id, one.text)
        for one in await client.outgoing(limit=10_000)
        if one.conversation == peer and one.outcome is not None
    ]
    kept = await client._parts.store.messages(-(2**62), limit=10_000, conversation=peer)
    return sorted(lines + [Line(one.seq, one.sender, one.text) for one in kept])


@asynccontextmanager
async def people(mesh: Mesh, folder: Path, count: int) -> AsyncIterator[list[Client]]:
    """So many people, each at a phone."""
    async with AsyncExitStack() as connected:
        clients = []
        for number in range(count):
            profile = folder / f"person-{number}"
            await Client.register(
                profile, f"p{secrets.token_hex(8)}", gateways=mesh.gateway_addresses
            )
            clients.append(await connected.enter_async_context(Client.connect(profile)))
        yield clients


async def say(sender: Client, to: bytes, count: int) -> None:
    """Say so much, and wait until the mesh has it."""
    for message in await sender.send_all(to, [f"{sender.handle} {n}" for n in range(count)]):
        await sender.accepted(message)


async def heard(client: Client, peer: bytes, seq: int) -> None:
    """Wait until the device has what is at the seq."""
    async with asyncio.timeout(30):
        async for message in client.messages(conversation=peer):
            if message.seq >= seq:
                return


async def talk(phone: Client, others: list[Client], count: int) -> None:
    """Let everybody talk with the phone, until it has heard all."""
    for other in others:
        await say(phone, other.user_id, count)
        await say(other, phone.user_id, count)
        await heard(phone, other.user_id, 2 * count)


async def test_a_linked_device_gets_the_conversations_as_the_primary_has_them(
    mesh: Mesh, tmp_path: Path
) -> None:
    async with people(mesh, tmp_path, 4) as (phone, *others):
        await talk(phone, others, 334)
        first = (await phone.outgoing(limit=1))[0]
        await phone.accepted(await phone.send(others[0].user_id, edit(first, "in other words")))
        await phone.user_named(others[0].handle)
        await phone.mark_read(others[0].user_id, 668)
        await link(phone, tmp_path / "laptop", mesh)
        async with Client.connect(tmp_path / "laptop") as laptop:
            moving = asyncio.create_task(complete(laptop))
            await reached(others[2], phone.handle, laptop)
            await moving
            async with asyncio.timeout(10):
                await phone.history.taken()
            pairs = [
                (await conversation(phone, o.user_id), await conversation(laptop, o.user_id))
                for o in others
            ]
            at_phone = {c.conversation: c for c in await phone.conversations()}
            at_laptop = {c.conversation: c for c in await laptop.conversations()}
            number = await laptop.safety_number(others[0].user_id)
            alarms = await laptop.alarms()

    assert all(of_phone == of_laptop for of_phone, of_laptop in pairs)
    assert sum(len(of_laptop) for _, of_laptop in pairs) >= 2000
    assert pairs[0][1][0].text == "in other words"
    assert at_laptop.keys() == at_phone.keys()
    assert {at_laptop[o.user_id].unread for o in others[:2]} == {0, 334}
    assert at_laptop[others[0].user_id].handle == others[0].handle
    assert number.digits()
    assert not alarms


async def killed(profile: Path, mesh: Mesh, point: str) -> None:
    """Connect the device in a process of its own until it dies at the point's third passing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.whimbrel_client.mortal"),
        *(str(profile), mesh.gateway_addresses[0], point, "stay"),
        env={**os.environ, "PYTHONPATH": f".{os.pathsep}gen", "GRPC_ENABLE_FORK_SUPPORT": "0"},
        cwd=Path(__file__).parents[2],
    )
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL


async def test_a_device_that_dies_in_the_middle_goes_on_where_it_was(
    mesh: Mesh, tmp_path: Path
) -> None:
    async with people(mesh, tmp_path, 2) as (phone, other):
        await talk(phone, [other], 1000)
        await link(phone, tmp_path / "laptop", mesh)
        await killed(tmp_path / "laptop", mesh, "history-taken")
        await say(other, phone.user_id, 1)
        async with Client.connect(tmp_path / "laptop") as laptop:
            before = (await anext(laptop.history.progress())).moved
            await heard(phone, other.user_id, 2001)
            await heard(laptop, other.user_id, 2001)
            await complete(laptop)
            at_laptop = await conversation(laptop, other.user_id)
            after = await anext(laptop.history.progress())
        at_phone = await conversation(phone, other.user_id)
        async with asyncio.timeout(10):
            await phone.history.taken()

    assert 0 < before < 2000
    assert after.is_complete
    assert at_laptop == at_phone


async def test_a_primary_that_dies_in_the_middle_goes_on_where_it_was(
    mesh: Mesh, tmp_path: Path
) -> None:
    async with people(mesh, tmp_path, 1) as (other,):
        handle = f"p{secrets.token_hex(8)}"
        await Client.register(tmp_path / "phone", handle, gateways=mesh.gateway_addresses)
        async with Client.connect(tmp_path / "phone") as phone:
            await talk(phone, [other], 1000)
            await link(phone, tmp_path / "laptop", mesh)
        async with Client.connect(tmp_path / "laptop") as laptop:
            await killed(tmp_path / "phone", mesh, "history-asked-for")
            before = (await anext(laptop.history.progress())).moved
            async with Client.connect(tmp_path / "phone") as phone:
                await complete(laptop)
                at_phone = await conversation(phone, other.user_id)
            at_laptop = await conversation(laptop, other.user_id)

    assert 0 < before < 2000
    assert at_laptop == at_phone


async def test_a_group_s_messages_move_and_later_ones_are_read_on_both_devices(
    mesh: Mesh, tmp_path: Path
) -> None:
    async with people(mesh, tmp_path, 3) as (phone, ben, cid):
        group_id = (await ben.groups.create("Hike", [phone.user_id, cid.user_id])).group_id
        for one in (phone, cid):
            await one.groups.caught_up()
        for round_ in range(10):
            for one in (phone, cid, ben):
                await one.accepted(await one.send(group_id, f"{one.handle} {round_}"))
        await heard(phone, group_id, 30)
        await heard(cid, group_id, 30)
        first = await chain_of(ben, group_id)

        await link(phone, tmp_path / "laptop", mesh)
        async with Client.connect(tmp_path / "laptop") as laptop:
            await complete(laptop)
            moved = await conversation(laptop, group_id)
            newest_first = [message.seq async for message in laptop.history.messages()]
            for one in (laptop, phone, cid, ben):
                await one.accepted(await one.send(group_id, f"{one.handle} later"))
            for one in (laptop, phone, cid):
                await heard(one, group_id, 34)
            await laptop.groups.caught_up()
            named = (await laptop.groups.get(group_id)).name
            at_laptop = await conversation(laptop, group_id)
            at_phone = await conversation(phone, group_id)
            handed = await chain_of(ben, group_id, read_by=laptop)

            await phone.revoke_device(2)

        async def is_told() -> bool:
            query = "SELECT FROM device_change_outbox WHERE user_id = $1"
            return not await on_each_shard(mesh, query, phone.user_id)

        await eventually(is_told)
        await ben.groups.caught_up()
        await ben.accepted(await ben.send(group_id, "without the laptop"))
        await heard(phone, group_id, 35)
        made_anew = await chain_of(ben, group_id)

    assert at_laptop == at_phone
    assert moved == at_phone[:30]
    assert newest_first == list(range(30, 0, -1))
    assert [line.seq for line in at_laptop] == list(range(1, 35))
    assert {line.text for line in at_laptop[30:]} == {
        f"{one.handle} later" for one in (phone, cid, ben)
    }
    assert None not in {line.text for line in at_laptop}
    assert named == "Hike"
    # The key was handed on as it stood: what was said before came by the history alone.
    assert (handed.chain, handed.iteration >= 10) == (first.chain, True)
    # Whoever had the key does not read on.
    assert made_anew.chain != first.chain


class Chain(NamedTuple):
    """A sender key, and how far it has gone."""

    chain: int
    iteration: int


async def chain_of(client: Client, group_id: bytes, *, read_by: Client | None = None) -> Chain:
    """What the device writes to the group with, or is read with there."""
    database = (read_by or client)._parts.store.groups._database
    if read_by is None:
        query, of = "SELECT key FROM sender_key WHERE group_id = ?", (group_id,)
        ((key,),) = await database.run(lambda c: c.execute(query, of).fetchall())
        written = load_sender_key(key)
        return Chain(written.chain_id, written.iteration)
    query = "SELECT reader FROM key_reader WHERE group_id = ? AND user_id = ?"
    reader = (group_id, client.user_id)
    ((key,),) = await database.run(lambda c: c.execute(query, reader).fetchall())
    read = load_reader(key).chains[0]
    return Chain(read.chain_id, min([read.iteration, *read.skipped]))


async def test_only_the_own_primary_gives_a_history_and_only_to_whom_it_offered_it(
    mesh: Mesh, tmp_path: Path
) -> None:
    async with people(mesh, tmp_path, 2) as (phone, other):
        await say(phone, other.user_id, 3)
        for name in ("laptop", "tablet"):
            await link(phone, tmp_path / name, mesh)
        async with (
            Client.connect(tmp_path / "tablet") as tablet,
            Client.connect(tmp_path / "laptop") as laptop,
        ):
            await complete(tablet)
            await complete(laptop)
            # As if it had asked for more, and the primary had not answered yet.
            token, own = bytes(range(16)), DeviceId(laptop.user_id, laptop.device_id)
            await laptop._store.history.expect(own, token, now_ms=0)
            forged = Content(history=invented(token, other.user_id))
            for forger in (other, tablet):
                await forger.accepted(await forger.send(phone.user_id, forged))
            for witness in (other, tablet):
                await reached(witness, phone.user_id, laptop)
            progress = await anext(laptop.history.progress())
            at_laptop = await conversation(laptop, other.user_id)

    assert progress == HistoryProgress(moved=0, total=0, is_complete=False)
    assert "never said" not in {line.text for line in at_laptop}


def invented(token: bytes, peer: bytes) -> History:
    """A part of a history with what nobody said."""
    said = Content(id=b"i" * 16, text=Text(body="never said")).SerializeToString()
    message = HistoryMessage(seq=90, message_id=b"m" * 16, sender=peer, content=said)
    conversation = HistoryConversation(conversation=peer, messages=[message])
    return History(token=token, conversations=[conversation], total=1)
