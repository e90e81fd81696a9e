import pytest

from mesh.ids import slot_of, ulid_text
from svc_message.identity.model import (
    DeviceUnknown,
    SignatureInvalid,
    SignatureStale,
)


async def _on_shard_of(shards, user_id, statement) -> None:
    pool = shards.pool(shards.shard_of(slot_of(user_id)))
    await pool.execute(statement, user_id)


async def test_a_device_gets_its_next_token(accounts, alice, verifier) -> None:
    access = await alice.register(accounts, "alice")
    await alice.clock.advance(3600)

    again = await accounts.refresh(access.user_id, 1, **alice.proof_of_refresh(access.user_id))

    assert verifier.verify(again.token).user == ulid_text(access.user_id)
    assert (again.expires_at - alice.clock.now()).total_seconds() == 600


async def test_the_token_carries_the_credential_version_of_now(
    accounts, alice, verifier, shards
) -> None:
    access = await alice.register(accounts, "alice")
    await _on_shard_of(
        shards, access.user_id, "UPDATE device SET credential_version = 7 WHERE user_id = $1"
    )

    again = await accounts.refresh(access.user_id, 1, **alice.proof_of_refresh(access.user_id))

    assert verifier.verify(again.token).credential_version == 7


async def test_nobody_else_gets_a_device_s_token(accounts, alice, mallory) -> None:
    access = await alice.register(accounts, "alice")
    other = await mallory.register(accounts, "mallory")
    forged = (
        mallory.proof_of_refresh(access.user_id),
        alice.proof_of_refresh(other.user_id),
        alice.proof_of_refresh(access.user_id, 2),
        alice.proof_of_register("alice"),
        {**alice.proof_of_refresh(access.user_id), "signed_at": alice.now - 1},
    )

    for proof in forged:
        with pytest.raises(SignatureInvalid):
            await accounts.refresh(access.user_id, 1, **proof)


async def test_an_old_proof_is_stale(accounts, alice) -> None:
    access = await alice.register(accounts, "alice")
    proof = alice.proof_of_refresh(access.user_id)
    await alice.clock.advance(61)

    with pytest.raises(SignatureStale):
        await accounts.refresh(access.user_id, 1, **proof)


async def test_a_device_that_is_not_there_is_unknown(accounts, alice) -> None:
    access = await alice.register(accounts, "alice")

    for device_id in (0, 2, 127):
        proof = alice.proof_of_refresh(access.user_id, device_id)
        with pytest.raises(DeviceUnknown):
            await accounts.refresh(access.user_id, device_id, **proof)


async def test_an_account_that_is_not_there_is_unknown(accounts, alice) -> None:
    with pytest.raises(DeviceUnknown):
        await accounts.refresh(bytes(16), 1, **alice.proof_of_refresh(bytes(16)))


async def test_an_unlinked_device_gets_no_token(accounts, alice, shards) -> None:
    access = await alice.register(accounts, "alice")
    await _on_shard_of(
        shards, access.user_id, "UPDATE device SET linked = false WHERE user_id = $1"
    )

    with pytest.raises(DeviceUnknown):
        await accounts.refresh(access.user_id, 1, **alice.proof_of_refresh(access.user_id))


async def test_a_service_account_is_made_once(accounts, shards) -> None:
    first = await accounts.ensure_service_account("billing")
    second = await accounts.ensure_service_account("billing")
    other = await accounts.ensure_service_account("news")

    pool = shards.pool(shards.shard_of(slot_of(first)))
    rows = await pool.fetch(
        "SELECT d.device_id, d.has_queue, a.handle FROM device d JOIN account a USING (user_id)"
        " WHERE user_id = $1",
        first,
    )
    assert first == second != other
    assert [tuple(row) for row in rows] == [(1, False, None)]


async def test_nobody_gets_the_token_of_a_service_account(accounts, alice) -> None:
    user_id = await accounts.ensure_service_account("billing")

    with pytest.raises(DeviceUnknown):
        await accounts.refresh(user_id, 1, **alice.proof_of_refresh(user_id))
