import asyncio

import pytest

from mesh.ids import slot_of
from svc_message.shards.directory import SlotMoving

_SET_STATE = "UPDATE slot SET state = $2, moved_to = $3, version = version + 1 WHERE slot = $1"
OWNED, FROZEN, INCOMING, MOVED = 1, 2, 3, 4

HANDLE = "alice"
SLOT = slot_of(HANDLE.encode())


@pytest.fixture
def here(shards) -> str:
    return shards.shard_of(SLOT)


@pytest.fixture
def there(shards, here) -> str:
    return next(name for name in shards.names if name != here)


async def test_a_handle_is_found_where_its_slot_went(identity, alice, shards, here, there) -> None:
    access = await alice.register(identity.accounts, HANDLE)
    await shards.pool(there).execute(
        "INSERT INTO handle VALUES ($1, $2, $3)", HANDLE, SLOT, access.user_id
    )
    await shards.pool(here).execute("DELETE FROM handle")
    await shards.pool(here).execute(_SET_STATE, SLOT, MOVED, there)
    await shards.pool(there).execute(_SET_STATE, SLOT, OWNED, None)

    found = await identity.finding.look_up(bytes(16), handle=HANDLE)

    assert found == access.user_id
    assert shards.shard_of(SLOT) == there


async def test_a_call_waits_for_a_moving_slot(identity, alice, shards, here) -> None:
    access = await alice.register(identity.accounts, HANDLE)
    await shards.pool(here).execute(_SET_STATE, SLOT, FROZEN, None)

    looking = asyncio.ensure_future(identity.finding.look_up(bytes(16), handle=HANDLE))
    done, _ = await asyncio.wait([looking], timeout=0.2)
    await shards.pool(here).execute(_SET_STATE, SLOT, OWNED, None)

    assert not done
    assert await looking == access.user_id


async def test_a_slot_that_moves_for_long_is_a_retriable_refusal(
    accounts, alice, shards, here
) -> None:
    await shards.pool(here).execute(_SET_STATE, SLOT, FROZEN, None)

    with pytest.raises(SlotMoving) as refusal:
        await alice.register(accounts, HANDLE)

    assert refusal.value.retry_after is not None
