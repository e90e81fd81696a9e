import asyncio

import pytest

from mesh.errors import Unavailable
from mesh.ids import slot_of, ulid_text
from svc_message.identity.model import (
    HandleTaken,
    SignatureInvalid,
    SignatureStale,
)
from svc_message.identity.registering import Registering
from svc_message.identity.store import AccountStore


async def _count(shards, table, where="true", *arguments) -> int:
    query = f"SELECT count(*) FROM {table} WHERE {where}"
    return sum([await shards.pool(name).fetchval(query, *arguments) for name in shards.names])


async def test_a_new_account_gets_an_id_a_primary_device_and_a_token(
    accounts, alice, verifier
) -> None:
    access = await alice.register(accounts, "alice")

    claims = verifier.verify(access.token)
    assert (claims.user, claims.device_id) == (ulid_text(access.user_id), access.device_id)
    assert (access.device_id, claims.credential_version) == (1, 1)
    assert claims.expires_at == access.expires_at
    assert (access.expires_at - alice.clock.now()).total_seconds() == 600


async def test_its_rows_are_in_their_slots_and_claimed(accounts, alice, shards) -> None:
    access = await alice.register(accounts, "alice")

    pool = shards.pool(shards.shard_of(slot_of(access.user_id)))
    account = await pool.fetchrow(
        "SELECT a.slot, a.handle, a.handle_claimed, d.public_key, d.has_queue, d.registration_id,"
        " k.version FROM account a JOIN device d USING (user_id) JOIN receipt_counter k"
        " USING (user_id) WHERE user_id = $1",
        access.user_id,
    )
    *rest, registration_id, version = account
    assert rest == [slot_of(access.user_id), "alice", True, alice.public_key, True]
    assert 0 < registration_id < 2**14
    assert version == 0
    pool = shards.pool(shards.shard_of(slot_of(b"alice")))
    handle = await pool.fetchrow("SELECT slot, user_id FROM handle WHERE handle = 'alice'")
    assert tuple(handle) == (slot_of(b"alice"), access.user_id)


async def test_the_same_handle_and_key_give_the_same_account(accounts, alice, shards) -> None:
    first = await alice.register(accounts, "alice")

    second = await alice.register(accounts, "alice")

    assert (second.user_id, second.device_id) == (first.user_id, first.device_id)
    assert await _count(shards, "account") == 1


async def test_another_key_does_not_get_the_handle(accounts, alice, mallory, shards) -> None:
    await alice.register(accounts, "alice")

    with pytest.raises(HandleTaken):
        await mallory.register(accounts, "alice")

    assert await _count(shards, "account") == 1


async def test_twins_with_one_key_get_one_account(accounts, alice, shards) -> None:
    twins = [alice.register(accounts, "alice") for _ in range(8)]

    given = {access.user_id for access in await asyncio.gather(*twins)}

    assert len(given) == 1
    assert await _count(shards, "account", "handle_claimed AND user_id = $1", *given) == 1
    for table in ("account", "device", "receipt_counter", "handle"):
        assert await _count(shards, table) == 1


async def test_of_rivals_one_wins_and_the_others_leave_nothing(
    accounts, alice, mallory, shards
) -> None:
    rivals = [person.register(accounts, "alice") for person in (alice, mallory) for _ in range(4)]

    outcomes = await asyncio.gather(*rivals, return_exceptions=True)

    won = {access.user_id for access in outcomes if not isinstance(access, Exception)}
    lost = [error for error in outcomes if isinstance(error, Exception)]
    assert len(won) == 1
    assert len(lost) == 4
    assert all(isinstance(error, HandleTaken) for error in lost)
    for table in ("account", "device", "receipt_counter", "handle"):
        assert await _count(shards, table) == 1


async def test_handles_at_the_bounds_are_taken(accounts, alice) -> None:
    for handle in ("abc", "a" * 32, "a.b_9"):
        assert (await alice.register(accounts, handle)).device_id == 1


async def test_a_signature_over_something_else_is_refused(unstored, alice, mallory) -> None:
    user_id = b"\1" * 16
    forged = (
        alice.proof_of_register("alicia"),
        mallory.proof_of_register("alice"),
        alice.proof_of_refresh(user_id),
        {**alice.proof_of_register("alice"), "signed_at": alice.now + 1},
        {"signed_at": alice.now, "signature": b""},
        {"signed_at": alice.now, "signature": bytes(64)},
    )

    for proof in forged:
        with pytest.raises(SignatureInvalid):
            await alice.register(unstored, "alice", **proof)


async def test_a_signature_of_a_minute_away_is_taken(accounts, alice) -> None:
    for seconds in (-60, 60):
        assert await alice.register(accounts, "alice", at=alice.now + seconds * 1000)


@pytest.mark.parametrize("milliseconds", [-60_001, 60_001, 2**62])
async def test_a_signature_of_more_than_a_minute_away_is_stale(
    unstored, alice, milliseconds
) -> None:
    with pytest.raises(SignatureStale) as refusal:
        await alice.register(unstored, "alice", at=alice.now + milliseconds)

    assert refusal.value.metadata == {"server_time": "2026-01-01T00:00:00.000Z"}


class _DiesAfter(AccountStore):
    """A store whose process dies after one of its calls."""

    def __init__(self, shards, step) -> None:
        super().__init__(shards)
        self._step = step

    async def make_account(self, account) -> None:
        await super().make_account(account)
        self._die("make_account")

    async def claim_handle(self, handle, user_id) -> bytes:
        owner = await super().claim_handle(handle, user_id)
        self._die("claim_handle")
        return owner

    def _die(self, step) -> None:
        if step == self._step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["make_account", "claim_handle"])
async def test_a_crash_in_the_middle_does_not_keep_the_handle_from_its_owner(
    accounts, alice, mallory, shards, keys, clock, step
) -> None:
    dying = Registering(_DiesAfter(shards, step), None, None, None, None, clock=clock)
    with pytest.raises(KeyboardInterrupt):
        await alice.register(dying, "alice")

    access = await alice.register(accounts, "alice")

    assert await _count(shards, "account", "handle_claimed AND user_id = $1", access.user_id) == 1
    with pytest.raises(HandleTaken):
        await mallory.register(accounts, "alice")


async def test_a_handle_whose_account_is_gone_comes_free(accounts, alice, mallory, shards) -> None:
    access = await alice.register(accounts, "alice")
    for name in shards.names:
        await shards.pool(name).execute("DELETE FROM account")

    with pytest.raises(Unavailable):
        await mallory.register(accounts, "alice")
    again = await mallory.register(accounts, "alice")

    assert again.user_id != access.user_id
