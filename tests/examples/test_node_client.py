"""A client that shares no line with the SDK, and has the real libsignal, talks through a mesh."""

import pytest

from tests.examples.conftest import Foreigners

pytestmark = pytest.mark.timeout(180)


async def test_two_foreign_clients_talk(foreigners: Foreigners) -> None:
    async with foreigners.client() as one, foreigners.client() as other:
        await one.send(other.handle, "hello", "and more")
        await other.received(2)
        await other.send(one.handle, "hello to you")
        await one.received(1)

        await one.receipt_covering(2)

        assert other.texts == ["hello", "and more"]
        assert one.texts == ["hello to you"]


async def test_a_reading_reaches_the_sender(foreigners: Foreigners) -> None:
    async with foreigners.client() as one, foreigners.client() as other:
        await one.send(other.handle, "read me")
        await other.received(1)

        await other.read(one.user_id, 1)

        await one.receipt_covering(1, is_read=True)


async def test_a_foreign_client_that_was_away_catches_up_in_order(foreigners: Foreigners) -> None:
    async with foreigners.client() as one:
        async with foreigners.client() as other:
            await other.online()
        texts = [f"{number}" for number in range(50)]
        await one.send(other.handle, *texts)
        await one.accepted(50)

        async with foreigners.client(other.handle) as again:
            received = await again.received(50)

    assert received == texts


async def test_a_foreign_client_that_is_killed_loses_and_doubles_nothing(
    foreigners: Foreigners,
) -> None:
    texts = [f"{number}" for number in range(60)]
    async with foreigners.client() as one:
        async with foreigners.client() as other:
            await one.send(other.handle, *texts)
            await other.received(5)
            await other.kill()
        cursors = [message["cursor"] for message in other.all("message")]

        # What it showed, it had kept: it shows the rest.
        async with foreigners.client(other.handle, after=cursors[-1]) as again:
            await again.received(60 - len(cursors))
            await again.send(one.handle, "all here")
            await one.received(1)

    assert other.texts + again.texts == texts
    assert one.texts == ["all here"]
