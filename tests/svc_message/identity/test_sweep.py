from datetime import timedelta

from mesh.ids import new_ulid, slot_of
from svc_message.identity.model import NewAccount
from svc_message.identity.sweep import Swept, sweep_unclaimed


async def _age(shards, minutes) -> None:
    for name in shards.names:
        await shards.pool(name).execute(
            "UPDATE account SET created_at = created_at - $1::interval", timedelta(minutes=minutes)
        )


async def _rows(shards, user_id) -> list[int]:
    pool = shards.pool(shards.shard_of(slot_of(user_id)))
    return [
        await pool.fetchval(f"SELECT count(*) FROM {table} WHERE user_id = $1", user_id)
        for table in ("account", "device", "receipt_counter")
    ]


async def test_an_account_that_never_claimed_its_handle_is_removed_after_an_hour(
    store, shards
) -> None:
    account = NewAccount(new_ulid(), "alice", bytes(32))
    await store.make_account(account)

    assert await sweep_unclaimed(store) == Swept()
    await _age(shards, 61)

    assert await sweep_unclaimed(store) == Swept(removed=1)
    assert await _rows(shards, account.user_id) == [0, 0, 0]


async def test_an_account_whose_claim_won_before_the_crash_is_kept(store, shards) -> None:
    account = NewAccount(new_ulid(), "alice", bytes(32))
    await store.make_account(account)
    await store.claim_handle("alice", account.user_id)
    await _age(shards, 61)

    assert await sweep_unclaimed(store) == Swept(confirmed=1)

    assert await _rows(shards, account.user_id) == [1, 1, 1]
    assert await sweep_unclaimed(store) == Swept()


async def test_accounts_in_use_and_service_accounts_are_not_looked_at(
    store, accounts, alice, shards
) -> None:
    access = await alice.register(accounts, "alice")
    service = await accounts.ensure_service_account("billing")
    await _age(shards, 61)

    assert await sweep_unclaimed(store) == Swept()

    assert await _rows(shards, access.user_id) == [1, 1, 1]
    assert await _rows(shards, service) == [1, 1, 1]


async def test_the_loser_s_account_is_removed_and_the_winner_s_kept(store, shards) -> None:
    winner, loser = (NewAccount(new_ulid(), "alice", bytes(32)) for _ in range(2))
    for account in (winner, loser):
        await store.make_account(account)
        await store.claim_handle("alice", account.user_id)
    await _age(shards, 61)

    assert await sweep_unclaimed(store) == Swept(removed=1, confirmed=1)

    assert await _rows(shards, winner.user_id) == [1, 1, 1]
    assert await _rows(shards, loser.user_id) == [0, 0, 0]
