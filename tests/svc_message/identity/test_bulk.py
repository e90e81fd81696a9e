from mesh.ids import slot_of


async def test_accounts_in_bulk_are_whole_and_on_their_shards(shards, bulk_accounts) -> None:
    accounts = await bulk_accounts(50)

    for account in accounts:
        pool = shards.pool(shards.shard_of(slot_of(account.user_id)))
        row = await pool.fetchrow(
            "SELECT a.slot, a.handle, a.handle_claimed, d.public_key, d.linked, k.version"
            " FROM account a JOIN device d USING (user_id) JOIN receipt_counter k USING (user_id)"
            " WHERE a.user_id = $1",
            account.user_id,
        )
        public_key = account.private_key.public_key().public_bytes_raw()
        assert tuple(row) == (
            slot_of(account.user_id), account.handle, True, public_key, True, 0
        )  # fmt: skip
    assert len({shards.shard_of(slot_of(account.user_id)) for account in accounts}) == 2


async def test_accounts_in_bulk_are_found_by_their_handles(shards, bulk_accounts) -> None:
    [account] = await bulk_accounts(1)

    pool = shards.pool(shards.shard_of(slot_of(account.handle.encode())))

    row = await pool.fetchrow("SELECT slot, user_id FROM handle WHERE handle = $1", account.handle)
    assert tuple(row) == (slot_of(account.handle.encode()), account.user_id)
