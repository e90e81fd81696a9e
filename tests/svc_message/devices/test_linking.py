import asyncio
import hashlib
from datetime import timedelta

import pytest

from mesh.errors import PermissionDenied
from mesh.ids import new_ulid, slot_of
from svc_message.identity.devices_model import DeviceRevoked, LinkTokenInvalid, TooManyDevices
from svc_message.identity.keys_model import KeyInvalid, KeySignatureInvalid, Upload
from svc_message.identity.model import SignatureInvalid, SignatureStale
from tests.svc_message.devices.key_making import an_identity, one_time_keys, signed_key


def _pool(shards, user_id):
    return shards.pool(shards.shard_of(slot_of(user_id)))


async def _age_token(shards, user_id) -> None:
    await _pool(shards, user_id).execute(
        "UPDATE link_token SET expires_at = clock_timestamp() WHERE user_id = $1", user_id
    )


async def _rows(shards, user_id, query):
    return [tuple(row) for row in await _pool(shards, user_id).fetch(query, user_id)]


async def test_a_device_links_itself_and_gets_a_token(
    devices, keys, keyed, new_device, verifier
) -> None:
    ann, bob = await keyed(), await keyed()
    tablet = new_device(ann, registration_id=42)
    token = await devices.create_link_token(ann.caller)

    access = await tablet.link(devices, ann.user_id, token.token)

    claims = verifier.verify(access.token)
    assert (access.device_id, claims.device_id, claims.credential_version) == (2, 2, 1)
    assert token.token not in repr(token).encode()
    [_, bundle] = (await keys.fetch(bob.caller, ann.user_id, 0)).bundles
    assert (bundle.device_id, bundle.registration_id) == (2, 42)
    assert (bundle.signed, bundle.kem) == (tablet.keys.signed, tablet.keys.last_resort)
    [primary, second] = await devices.list(ann.caller)
    assert (primary.device_id, primary.encrypted_name) == (1, b"")
    assert (second.device_id, second.encrypted_name, second.last_seen_on) == (2, b"a name", None)


async def test_linking_again_with_the_same_key_gives_the_same_device(
    devices, keyed, new_device
) -> None:
    ann = await keyed()
    tablet = new_device(ann)
    token = (await devices.create_link_token(ann.caller)).token
    request = tablet.request(ann.user_id, token)

    answers = await asyncio.gather(*(devices.link(**request) for _ in range(6)))

    assert {access.device_id for access in answers} == {2}
    assert len(await devices.list(ann.caller)) == 2


async def test_a_link_token_serves_one_device_once(devices, keyed, new_device, shards) -> None:
    ann = await keyed()
    token = (await devices.create_link_token(ann.caller)).token
    first = new_device(ann)
    access = await first.link(devices, ann.user_id, token)

    with pytest.raises(LinkTokenInvalid):
        await new_device(ann).link(devices, ann.user_id, token)
    await devices.revoke(ann.caller, access.device_id)
    with pytest.raises(LinkTokenInvalid):
        await first.link(devices, ann.user_id, token)

    assert [device.device_id for device in await devices.list(ann.caller)] == [1]


async def test_many_devices_at_one_token_link_one(devices, device_store, keyed, new_device) -> None:
    ann = await keyed()
    rivals = [new_device(ann) for _ in range(8)]

    for linked_before in range(1, 6):
        token = (await devices.create_link_token(ann.caller)).token
        hashed = hashlib.sha256(token).digest()
        outcomes = await asyncio.gather(
            *(device_store.link(ann.user_id, hashed, d.public_key, b"", d.keys) for d in rivals),
            return_exceptions=True,
        )

        assert sum(isinstance(outcome, LinkTokenInvalid) for outcome in outcomes) == 7
        assert len(await devices.list(ann.caller)) == linked_before + 1


async def test_wrong_old_and_replaced_link_tokens_are_refused(
    devices, keyed, new_device, shards
) -> None:
    ann, bob = await keyed(), await keyed()
    tablet = new_device(ann)
    replaced = (await devices.create_link_token(ann.caller)).token
    token = (await devices.create_link_token(ann.caller)).token
    bobs = (await devices.create_link_token(bob.caller)).token

    for user_id, wrong in (
        (ann.user_id, bytes(32)),
        (ann.user_id, replaced),
        (ann.user_id, bobs),
        (bob.user_id, token),
        (new_ulid(), token),
    ):
        with pytest.raises(LinkTokenInvalid):
            await tablet.link(devices, user_id, wrong)
    await _age_token(shards, ann.user_id)
    with pytest.raises(LinkTokenInvalid):
        await tablet.link(devices, ann.user_id, token)


async def test_a_forged_or_replayed_link_is_refused(devices, keyed, new_device, clock) -> None:
    ann = await keyed()
    tablet, mallory = new_device(ann), new_device(ann)
    token = (await devices.create_link_token(ann.caller)).token
    request = tablet.request(ann.user_id, token)

    with pytest.raises(SignatureInvalid):
        await devices.link(**request | {"public_key": mallory.public_key})
    with pytest.raises(SignatureInvalid):
        await devices.link(**request | {"signed_at": request["signed_at"] + 1})
    with pytest.raises(SignatureInvalid):
        await devices.link(**request | {"link_token": bytes(32)})
    with pytest.raises(SignatureInvalid):
        await devices.link(**request | {"user_id": new_ulid()})
    await clock.advance(61)
    with pytest.raises(SignatureStale):
        await devices.link(**request)
    assert len(await devices.list(ann.caller)) == 1


async def test_a_link_s_keys_are_the_account_s(devices, keyed, new_device) -> None:
    ann, mallory = await keyed(), await keyed()
    token = (await devices.create_link_token(ann.caller)).token
    foreign, tablet = new_device(mallory), new_device(ann)
    good = tablet.keys

    with pytest.raises(KeyInvalid) as refused:
        await foreign.link(devices, ann.user_id, token)
    assert refused.value.metadata["field"] == "identity_key"
    tablet.keys = type(good)(good.identity_key, 500, signed_key(an_identity()), good.last_resort)
    with pytest.raises(KeySignatureInvalid):
        await tablet.link(devices, ann.user_id, token)

    # Nothing of that has used the token up.
    tablet.keys = good
    assert (await tablet.link(devices, ann.user_id, token)).device_id == 2


async def test_an_eleventh_device_is_refused(devices, keyed, linked, new_device, shards) -> None:
    ann = await keyed()
    for _ in range(8):
        await linked(ann)
    early = (await devices.create_link_token(ann.caller)).token
    pool = _pool(shards, ann.user_id)
    saved = await pool.fetchrow("SELECT * FROM link_token WHERE user_id = $1", ann.user_id)
    assert (await linked(ann)).device_id == 10

    with pytest.raises(TooManyDevices) as refused:
        await devices.create_link_token(ann.caller)
    assert refused.value.metadata == {"allowed": "10"}
    # One that got its token while there was room, and comes too late.
    await pool.execute(
        "UPDATE link_token SET token_hash = $2, used_by = NULL WHERE user_id = $1",
        ann.user_id,
        saved["token_hash"],
    )
    with pytest.raises(TooManyDevices):
        await new_device(ann).link(devices, ann.user_id, early)

    await devices.revoke(ann.caller, 5)
    assert (await linked(ann)).device_id == 5


async def test_only_the_primary_lets_devices_in(devices, keyed, linked) -> None:
    ann = await keyed()
    tablet = await linked(ann)

    with pytest.raises(PermissionDenied):
        await devices.create_link_token(tablet)
    with pytest.raises(PermissionDenied):
        await devices.demand_primary(tablet)
    await devices.demand_primary(ann.caller)


async def test_an_account_without_keys_links_nothing(
    devices, keyed, new_device, bulk_accounts
) -> None:
    [account] = await bulk_accounts(1)
    ann = await keyed()
    keyless = type(ann.caller)(account.user_id, 1, 1)
    token = (await devices.create_link_token(keyless)).token

    with pytest.raises(KeyInvalid):
        await new_device(ann).link(devices, account.user_id, token)


async def test_a_link_token_is_stored_as_its_hash(devices, keyed, shards) -> None:
    ann = await keyed()

    token = (await devices.create_link_token(ann.caller)).token

    [row] = await _rows(shards, ann.user_id, "SELECT * FROM link_token WHERE user_id = $1")
    assert token not in row


async def test_a_device_linked_under_an_old_id_goes_on_from_its_counters(
    devices, keys, keyed, linked, shards
) -> None:
    ann = await keyed()
    tablet = await linked(ann)
    await keys.upload(tablet, Upload(one_time=one_time_keys(3)))
    pool = _pool(shards, ann.user_id)
    await pool.execute(
        "UPDATE device SET head_pos = 3, acked_pos = 1, epoch = 7"
        " WHERE user_id = $1 AND device_id = 2",
        ann.user_id,
    )
    await pool.execute(
        "INSERT INTO device_queue SELECT $1, 2, n, n, 0, now(), 1, 1, '', '', '', '', ''"
        " FROM generate_series(2, 3) n",
        ann.user_id,
    )

    await devices.revoke(ann.caller, 2)
    for table in ("device_queue", "one_time_prekey", "device_keys"):
        gone = f"SELECT FROM {table} WHERE user_id = $1 AND device_id = 2"
        assert await _rows(shards, ann.user_id, gone) == []
    assert (await linked(ann)).device_id == 2

    columns = "linked, head_pos, acked_pos, epoch, credential_version"
    kept = f"SELECT {columns} FROM device WHERE user_id = $1 AND device_id = 2"
    assert await _rows(shards, ann.user_id, kept) == [(True, 3, 3, 8, 2)]
    with pytest.raises(DeviceRevoked):
        await keys.count(tablet)


async def test_old_link_tokens_and_mail_are_forgotten(devices, device_store, keyed, shards) -> None:
    ann, bob = await keyed(), await keyed()
    for person in (ann, bob):
        await devices.create_link_token(person.caller)
        await device_store.leave(person.user_id, b"", b"mail", lifetime=timedelta(minutes=2))
    await _age_token(shards, ann.user_id)
    await _pool(shards, ann.user_id).execute(
        "UPDATE provisioning SET expires_at = clock_timestamp() WHERE address = $1", ann.user_id
    )

    await devices.sweep(idle_after=timedelta(days=45))

    for person, left in ((ann, 0), (bob, 1)):
        tokens = await _rows(shards, person.user_id, "SELECT FROM link_token WHERE user_id = $1")
        mail = await _rows(shards, person.user_id, "SELECT FROM provisioning WHERE address = $1")
        assert (len(tokens), len(mail)) == (left, left)
