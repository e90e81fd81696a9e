"""The end of an account: at once for everybody, and soon without a trace on any shard."""

import hashlib
from datetime import timedelta

import pytest

from mesh.errors import PermissionDenied
from mesh.ids import slot_of
from mesh.postgres import acquired
from svc_message.conversations import direct_conversation
from svc_message.identity.devices_model import DeviceRevoked
from svc_message.identity.model import DeviceUnknown, HandleUnknown
from tests.svc_message.devices.key_making import an_identity, device_keys
from tests.svc_message.messaging.conftest import core

__all__ = ["core"]

NUMBER = "+4915112345678"
NOW = timedelta()

_COLUMNS = """
SELECT c.relname, array_agg(a.attname::text)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    AND c.relname NOT IN ('slot', 'migration')
GROUP BY c.relname ORDER BY 1
"""
# What belongs to the account alone; that one is there before shows that the search finds it.
_EVERYWHERE = {
    *("account", "device", "device_keys", "one_time_prekey", "handle", "phone_number"),
    *("registration_code", "conversation", "thread", "receipt", "receipt_counter", "block", "mute"),
}


@pytest.fixture
def traces(shards):
    """`await traces(b"..", "..")`: the tables of each shard in which any of it stands."""

    async def search(*needles) -> set[tuple[str, str]]:
        wanted = [needle.hex() if isinstance(needle, bytes) else needle for needle in needles]
        found = set()
        for name in shards.names:
            async with acquired(shards.pool(name), within=timedelta(seconds=10)) as connection:
                for table, _ in await connection.fetch(_COLUMNS):
                    rows = [
                        row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} t")
                    ]
                    if any(needle in row for needle in wanted for row in rows):
                        found.add((name, table))
        return found

    return search


@pytest.fixture
def shard_of(shards):
    return lambda user_id: shards.shard_of(slot_of(user_id))


@pytest.fixture
async def alice_access(register_by_number, alice):
    keys = device_keys(an_identity())
    proof = alice.proof_with_keys("alice", NUMBER, keys)
    return await register_by_number(alice, "alice", NUMBER, **proof)


async def test_at_once_nobody_finds_it_acts_for_it_or_writes_to_it(
    strict, alice, alice_access, ended, core, bulk_accounts
) -> None:
    peer, stranger = await bulk_accounts(2)
    before, _ = await core.send(peer.user_id, alice_access.user_id)
    own = alice.caller(alice_access)

    await strict.deleting.delete(own)
    after, refusal = await core.send(stranger.user_id, alice_access.user_id)

    assert before is not None
    assert (after, refusal.reason) == (None, "RECIPIENT_UNKNOWN")
    assert [device[:2] for device in ended.devices] == [(alice_access.user_id, 1)]
    with pytest.raises(HandleUnknown):
        await strict.finding.look_up(peer.user_id, handle="alice")
    with pytest.raises(DeviceUnknown):
        await strict.accounts.refresh(
            alice_access.user_id, 1, **alice.proof_of_refresh(alice_access.user_id)
        )
    with pytest.raises(DeviceRevoked):
        await strict.deleting.delete(own)


async def test_a_linked_device_deletes_nothing(strict, alice, alice_access) -> None:
    with pytest.raises(PermissionDenied):
        await strict.deleting.delete(alice.caller(alice_access, device_id=2))


async def test_one_sweep_leaves_no_trace_on_any_shard(
    strict, alice, alice_access, core, bulk_accounts, traces, in_its_slot, shards
) -> None:
    user_id, own = alice_access.user_id, alice.caller(alice_access)
    peers = [account.user_id for account in await bulk_accounts(8)]
    for peer in peers:
        await core.send(user_id, peer)
        await core.send(peer, user_id)
        await strict.personal.block(own, peer)
        await strict.personal.mute(own, peer, alice.clock.now() + timedelta(days=999))
        await in_its_slot(peer, "INSERT INTO block VALUES ($1, $2)", user_id)
    await core.core.drained()
    for peer in peers[:4]:
        await core.ack(peer, 1)
    await core.ack(user_id, 4)
    await core.core.drained()
    for peer in peers[4:]:
        await core.ack(peer, 1)
    await core.core.drained()
    await in_its_slot(user_id, "INSERT INTO one_time_prekey VALUES ($1, 1, 0, 1, '')")
    needles = (user_id, "alice", hashlib.sha256(NUMBER.encode()).digest())
    before = await traces(*needles)

    await strict.deleting.delete(own)
    removed = await strict.deleting.sweep(older_than=NOW)

    assert removed == 1
    assert {table for _, table in before} >= _EVERYWHERE
    assert {shard for shard, _ in before} == set(shards.names)
    assert await traces(*needles) == set()
    assert await strict.deleting.sweep(older_than=NOW) == 0


async def test_its_handle_and_number_come_free(
    strict, alice, mallory, alice_access, register_by_number, phones
) -> None:
    await strict.deleting.delete(alice.caller(alice_access))
    await strict.deleting.sweep(older_than=NOW)
    phones.codes.clear()

    again = await register_by_number(mallory, "alice", NUMBER)

    assert again.user_id != alice_access.user_id


async def test_what_it_has_sent_is_delivered_first(
    strict, alice, alice_access, core, bulk_accounts, shards, shard_of, in_its_slot, traces
) -> None:
    user_id = alice_access.user_id
    peers = [account.user_id for account in await bulk_accounts(10)]
    for peer in peers:
        await core.send(user_id, peer)
    await core.core.drained()
    [held] = [peer for peer in peers if shard_of(peer) != shard_of(user_id)][:1]
    conversation_id, home = direct_conversation(user_id, held)
    await in_its_slot(
        conversation_id,
        "INSERT INTO copy_outbox (slot, user_slot, due, user_id, prev, seq, sent_prev, accepted_at,"
        " sender_device_id, conversation_id, peer_id, sender_id, message_id, devices,"
        " registrations, types, bodies) VALUES ($2, $3, now() + interval '1 hour', $4, 1, 2, 1,"
        " now(), 1, $1, $5, $5, '', '{0}', '{0}', '{1}', '{}')",
        *(home, slot_of(held), held, user_id),
        slot=home,
    )
    await strict.deleting.delete(alice.caller(alice_access))

    first = await strict.deleting.sweep(older_than=NOW)
    kept = {table for _, table in await traces(user_id)}
    await in_its_slot(
        conversation_id, "DELETE FROM copy_outbox WHERE conversation_id = $1", slot=home
    )
    second = await strict.deleting.sweep(older_than=NOW)

    assert (first, second) == (0, 1)
    assert {"account", "conversation", "copy_outbox"} <= kept
    assert {table for _, table in await traces(user_id)} == {"device_queue"}  # the peers' own


async def test_a_sweep_takes_only_what_has_ended_for_a_while(
    strict, alice, alice_access, traces
) -> None:
    await strict.deleting.delete(alice.caller(alice_access))

    await strict.sweep.round()

    assert "account" in {table for _, table in await traces(alice_access.user_id)}
