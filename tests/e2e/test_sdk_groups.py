"""Groups by the SDK on a real mesh: keys, members, devices, ticks."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from tests.faults.town import eventually
from tests.whimbrel_client.stored import looked_into
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import CallFailed, Client, Message, SendRefused
from whimbrel_client.groups.model import Group, Permissions, Role, Tally

T = TypeVar("T")

WITHIN = 20.0


class People:
    """People with devices, online until they leave, or the test ends."""

    def __init__(self, folder: Path, mesh: Mesh, opened: AsyncExitStack) -> None:
        self.folder = folder
        self._mesh = mesh
        self._opened = opened
        self._leaving: dict[Client, AsyncExitStack] = {}

    async def online(self) -> Client:
        """Somebody new."""
        handle = f"p{secrets.token_hex(8)}"
        gateways = self._mesh.gateway_addresses
        await Client.register(self.folder / handle, handle, gateways=gateways)
        return await self.back(handle)

    async def linked(self, primary: Client, name: str) -> Client:
        """A second device of somebody."""
        shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        gateways = self._mesh.gateway_addresses
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                Client.link(self.folder / name, gateways=gateways, show=shown.set_result, name="d2")
            )
            await primary.link_device(await shown)
        return await self.back(name)

    async def back(self, profile: str) -> Client:
        """Somebody who has an account here."""
        leaving = await self._opened.enter_async_context(AsyncExitStack())
        client = await leaving.enter_async_context(Client.connect(self.folder / profile))
        await client.online()
        self._leaving[client] = leaving
        return client

    async def leaves(self, client: Client) -> Path:
        """They go offline; where the store of the first device is then."""
        await self._leaving.pop(client).aclose()
        return self.folder / client.handle / "store.db"


@pytest.fixture
async def people(tmp_path: Path, mesh: Mesh) -> AsyncIterator[People]:
    async with AsyncExitStack() as opened:
        yield People(tmp_path, mesh, opened)


async def heard(client: Client, group_id: bytes, text: str) -> Message:
    """The message of the group with these words, once it is there."""
    async with asyncio.timeout(WITHIN):
        async for message in client.messages(conversation=group_id):
            if message.text == text:
                return message
    raise AssertionError("the client has ended")


async def until(read: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> T:
    """What is read, once it is as wanted."""
    found: list[T] = []

    async def is_so() -> bool:
        found[:] = [await read()]
        return wanted(found[0])

    await eventually(is_so, within=WITHIN)
    return found[0]


async def followed(client: Client, wanted: Callable[[Group], bool]) -> Group:
    """The client's only group, once it is told to be as wanted."""
    async with asyncio.timeout(WITHIN):
        async for groups in client.groups.follow():
            if groups and wanted(groups[0]):
                return groups[0]
    raise AssertionError("the client has ended")


async def kept(client: Client, group_id: bytes) -> list[Message]:
    """All that is there of the group, in local order."""
    messages = []
    reading = client.messages(conversation=group_id)
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.2):
                messages.append(await anext(reading))
    return messages


async def test_all_devices_of_all_members_read_and_the_sender_sees_how_many(
    people: People,
) -> None:
    ann, ben, cid = [await people.online() for _ in range(3)]
    ben_2 = await people.linked(ben, "ben-2")
    ann_2 = await people.linked(ann, "ann-2")
    group = await ann.groups.create("Hike", [ben.user_id, cid.user_id])

    sent = await ann.send(group.group_id, "who comes?")
    for client in (ben, ben_2, cid, ann_2):
        message = await heard(client, group.group_id, "who comes?")
        assert (message.sender, message.seq) == (ann.user_id, 1)
    await heard(ben_2, group.group_id, "who comes?")
    await ben.mark_read(group.group_id, 1)
    await ben_2.send(group.group_id, "me")
    assert (await heard(ann, group.group_id, "me")).sender_device == 2

    tally = await until(lambda: ann.groups.tally(sent), lambda one: one == Tally(2, 1, 2))
    assert tally == Tally(2, 1, 2)
    who = {one.user_id: one.is_read for one in await ann.groups.who_has(sent)}
    assert who == {ben.user_id: True, cid.user_id: False}
    assert (await ben.groups.get(group.group_id)).name == "Hike"


async def test_who_is_removed_reads_no_more_and_who_is_added_reads_from_then_on(
    people: People,
) -> None:
    ann, ben, cid, dan = [await people.online() for _ in range(4)]
    group_id = (await ann.groups.create("Hike", [ben.user_id, cid.user_id])).group_id
    await ann.send(group_id, "one")
    for client in (ben, cid):
        await heard(client, group_id, "one")

    await ann.groups.remove(group_id, ben.user_id)
    await ann.groups.add(group_id, [dan.user_id])
    await cid.send(group_id, "two")  # perhaps before the news of it has come
    await ann.send(group_id, "three")

    for client in (ann, dan):
        await heard(client, group_id, "two")
    for client in (cid, dan):
        await heard(client, group_id, "three")
    assert {one.text for one in await kept(dan, group_id)} == {"two", "three"}
    assert [one.text for one in await kept(ben, group_id)] == ["one"]
    left = await until(lambda: ben.groups.get(group_id), lambda one: not one.is_member)
    assert ben.user_id not in left.members
    refused = await ben.send(group_id, "I am still here")
    with pytest.raises(SendRefused, match="GROUP_UNKNOWN"):
        await ben.accepted(refused)


async def test_a_key_that_is_lacking_is_asked_for_and_its_messages_open_late(
    people: People,
) -> None:
    ann, ben = [await people.online() for _ in range(2)]
    group_id = (await ann.groups.create("Hike", [ben.user_id])).group_id
    await ann.send(group_id, "one")
    await heard(ben, group_id, "one")
    with looked_into(await people.leaves(ben)) as connection:
        connection.execute("DELETE FROM key_reader")
    for text in ("two", "three"):
        await ann.accepted(await ann.send(group_id, text))

    ben = await people.back(ben.handle)
    assert (await heard(ben, group_id, "two")).seq == 2
    await heard(ben, group_id, "three")
    await ann.send(group_id, "four")
    await heard(ben, group_id, "four")

    assert [one.text for one in await kept(ben, group_id)] == ["one", "two", "three", "four"]


async def test_a_device_that_is_linked_later_reads_what_is_written_from_then_on(
    people: People,
) -> None:
    ann, ben = [await people.online() for _ in range(2)]
    group_id = (await ann.groups.create("Hike", [ben.user_id])).group_id
    await ann.accepted(await ann.send(group_id, "one"))

    ben_2 = await people.linked(ben, "ben-2")
    ann_2 = await people.linked(ann, "ann-2")
    await ann.send(group_id, "two")
    for client in (ben, ben_2, ann_2):
        await heard(client, group_id, "two")
    await ben_2.send(group_id, "three")
    for client in (ben, ann, ann_2):
        await heard(client, group_id, "three")
    assert [one.text for one in await kept(ben_2, group_id)] == ["two"]


async def test_what_a_group_allows_and_how_long_messages_stay_holds_for_all(
    people: People,
) -> None:
    ann, ben, cid = [await people.online() for _ in range(3)]
    group_id = (await ann.groups.create("Hike", [ben.user_id])).group_id
    only_admins = Permissions(send=Role.ADMIN, add=Role.MEMBER, edit=Role.MEMBER)

    assert (await ann.groups.set_permissions(group_id, only_admins)).permissions == only_admins
    await ann.groups.set_timer(group_id, timedelta(hours=1))
    seen = await followed(ben, lambda one: one.revision == 3)
    assert (seen.permissions, seen.disappear_after) == (only_admins, timedelta(hours=1))
    refused = await ben.send(group_id, "may I?")
    with pytest.raises(SendRefused, match="CALLER_NOT_ALLOWED"):
        await ben.accepted(refused)
    assert cid.user_id in (await ben.groups.add(group_id, [cid.user_id])).members
    assert (await ben.groups.rename(group_id, "Night hike")).name == "Night hike"
    with pytest.raises(CallFailed, match="CALLER_NOT_ALLOWED"):
        await ben.groups.set_permissions(group_id, Permissions())

    await ann.groups.set_role(group_id, ben.user_id, Role.ADMIN)
    await ben.send(group_id, "now I may")
    for client in (ann, cid):
        await heard(client, group_id, "now I may")
    never = await ann.groups.set_timer(group_id, timedelta())
    assert never.disappear_after is None


async def test_who_is_banned_comes_in_no_way_until_the_ban_is_lifted(people: People) -> None:
    ann, ben = [await people.online() for _ in range(2)]
    group_id = (await ann.groups.create("Hike", [ben.user_id])).group_id
    link = await ann.groups.make_link(group_id)

    await ann.groups.remove(group_id, ben.user_id, ban=True)
    with pytest.raises(CallFailed, match="MEMBER_BANNED"):
        await ann.groups.add(group_id, [ben.user_id])
    with pytest.raises(CallFailed, match="MEMBER_BANNED"):
        await ben.groups.join(link)
    await ann.groups.unban(group_id, ben.user_id)
    joined = await ben.groups.join(link)
    assert joined is not None
    await ben.send(group_id, "back again")
    await heard(ann, group_id, "back again")

    assert joined.members == {ann.user_id: Role.OWNER, ben.user_id: Role.MEMBER}
    kinds = [one.kind for one in await ann.groups.changes(group_id)]
    assert kinds == ["created", "set_link", "remove", "unban", "joined"]


async def test_a_way_in_is_closed_and_a_group_is_handed_on_and_left(people: People) -> None:
    ann, ben, cid = [await people.online() for _ in range(3)]
    group_id = (await ann.groups.create("Hike", [ben.user_id])).group_id
    await ann.groups.handed_out(group_id)
    link = await ann.groups.make_link(group_id, needs_approval=True)

    assert await cid.groups.join(link) is None
    assert [one.user_id for one in await ann.groups.join_requests(group_id)] == [cid.user_id]
    await ann.groups.decline(group_id, cid.user_id)
    assert await ann.groups.join_requests(group_id) == []
    await ann.groups.revoke_link(group_id)
    with pytest.raises(CallFailed, match="GROUP_LINK_INVALID"):
        await cid.groups.join(link)
    with pytest.raises(CallFailed, match="CALLER_NOT_ALLOWED"):
        await ann.groups.leave(group_id)  # it needs an owner

    handed = await ann.groups.transfer(group_id, ben.user_id)
    assert handed.members == {ben.user_id: Role.OWNER, ann.user_id: Role.ADMIN}
    assert not (await ann.groups.leave(group_id)).is_member
    alone = await until(lambda: ben.groups.get(group_id), lambda one: len(one.members) == 1)
    assert alone.members == {ben.user_id: Role.OWNER}
