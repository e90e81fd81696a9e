import asyncio
import hashlib
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from mesh.caller import Caller
from mesh.errors import Unavailable
from mesh.ids import new_ulid, slot_of
from mesh.redis import open_redis
from svc_message.identity.buckets import Buckets, RateLimited
from svc_message.identity.devices_model import DeviceRevoked
from svc_message.identity.keys import Keys, KeysUnknown
from svc_message.identity.keys_model import KeyInvalid, KeySignatureInvalid, Upload
from tests.svc_message.devices.conftest import put_keys
from tests.svc_message.devices.key_making import (
    an_identity,
    device_keys,
    kem_key,
    kem_keys,
    one_time_keys,
    signed_key,
)


async def _new_device(shards, owner, device_id) -> None:
    pool = shards.pool(shards.shard_of(slot_of(owner.user_id)))
    await pool.execute(
        "INSERT INTO device (user_id, device_id, registration_id, public_key)"
        " VALUES ($1, $2, 5, '')",
        owner.user_id,
        device_id,
    )


async def _ids(keys, caller, target, count):
    """The ids of one-time keys that so many fetches give, EC and KEM."""
    bundles = [(await keys.fetch(caller, target.user_id, 1)).bundles[0] for _ in range(count)]
    return [b.one_time and b.one_time.id for b in bundles], [b.kem.id for b in bundles]


async def test_a_fetch_gives_all_that_opens_a_session(keys, keyed) -> None:
    ann, bob = await keyed(), await keyed()
    one_time, kem = one_time_keys(2), kem_keys(ann.identity, 2, first=50)
    await keys.upload(ann.caller, Upload(one_time=one_time, one_time_kem=kem))

    fetched = await keys.fetch(bob.caller, ann.user_id, 0)

    [bundle] = fetched.bundles
    assert fetched.identity_key == ann.identity.public
    assert (bundle.device_id, bundle.registration_id) == (1, 77)
    assert bundle.signed == ann.keys.signed
    assert (bundle.one_time, bundle.kem) == (one_time[0], kem[0])


async def test_one_time_keys_go_out_oldest_first_and_then_the_last_resort_answers(
    keys, keyed
) -> None:
    ann, bob = await keyed(), await keyed()
    # Ids that wrapped around: the oldest is the first of the upload, not the lowest id.
    one_time = [replace(key, id=9 - n) for n, key in enumerate(one_time_keys(3))]
    upload = Upload(one_time=one_time, one_time_kem=kem_keys(ann.identity, 2, first=50))
    await keys.upload(ann.caller, upload)

    ec, kem = await _ids(keys, bob.caller, ann, 5)

    assert ec == [9, 8, 7, None, None]
    assert kem == [50, 51, 2, 2, 2]


async def test_an_upload_replaces_the_pool_and_each_signed_key_singly(keys, keyed) -> None:
    ann, bob = await keyed(), await keyed()
    kem = kem_keys(ann.identity, 3, first=50)
    signed, last = signed_key(ann.identity, 7), kem_key(ann.identity, 8)
    await keys.upload(ann.caller, Upload(one_time=one_time_keys(5), one_time_kem=kem))
    await keys.upload(ann.caller, Upload(signed=signed))
    await keys.upload(ann.caller, Upload(one_time=one_time_keys(2, first=20)))
    assert await keys.count(ann.caller) == (2, 3)
    await keys.upload(ann.caller, Upload(last_resort=last))

    [first] = (await keys.fetch(bob.caller, ann.user_id, 1)).bundles

    assert (first.signed, first.one_time.id, first.kem) == (signed, 20, kem[0])
    assert await keys.count(ann.caller) == (1, 2)
    assert [(await keys.fetch(bob.caller, ann.user_id, 1)).bundles[0].kem for _ in range(3)] == [
        kem[1],
        kem[2],
        last,
    ]


async def test_nothing_that_is_forged_or_malformed_changes_anything(keys, keyed) -> None:
    ann, mallory = await keyed(), await keyed()
    good = one_time_keys(2)
    await keys.upload(ann.caller, Upload(one_time=good))

    for forged in (signed_key(mallory.identity), signed_key(an_identity())):
        with pytest.raises(KeySignatureInvalid):
            await keys.upload(ann.caller, Upload(signed=forged, one_time=one_time_keys(9)))
    with pytest.raises(KeySignatureInvalid):
        await keys.upload(ann.caller, Upload(one_time_kem=kem_keys(mallory.identity, 1)))
    with pytest.raises(KeyInvalid):
        await keys.upload(ann.caller, Upload(one_time=[replace(good[0], public_key=b"short")]))

    assert await keys.count(ann.caller) == (2, 0)
    assert (await keys.fetch(mallory.caller, ann.user_id, 1)).bundles[0].signed == ann.keys.signed


async def test_another_s_bundle_cannot_be_uploaded_as_one_s_own(keys, keyed) -> None:
    ann, mallory = await keyed(), await keyed()

    with pytest.raises(KeySignatureInvalid):
        await keys.upload(mallory.caller, Upload(ann.keys.signed, ann.keys.last_resort))


async def test_a_device_that_was_registered_without_keys_has_nothing_to_give(
    keys, keyed, bulk_accounts
) -> None:
    ann = await keyed()
    [account] = await bulk_accounts(1)
    keyless = Caller(account.user_id, 1, 1)

    for target, device in (
        (account.user_id, 0),
        (new_ulid(), 0),
        (ann.user_id, 2),
    ):
        with pytest.raises(KeysUnknown):
            await keys.fetch(ann.caller, target, device)
    with pytest.raises(KeyInvalid):
        await keys.upload(keyless, Upload(one_time=one_time_keys(1)))
    assert await keys.count(keyless) == (0, 0)
    assert await keys.check(keyless, b"") is False


async def test_all_devices_with_keys_come_in_order_under_one_identity(keys, keyed, shards) -> None:
    ann, bob = await keyed(), await keyed()
    for device in (4, 3, 2):
        await _new_device(shards, ann, device)
    for device in (4, 2):
        linked = device_keys(ann.identity, registration_id=device)
        assert await put_keys(shards, ann.user_id, device, linked) == 1
    foreign = device_keys(an_identity())
    assert await put_keys(shards, ann.user_id, 3, foreign) == 62

    fetched = await keys.fetch(bob.caller, ann.user_id, 0)

    assert [(b.device_id, b.registration_id) for b in fetched.bundles] == [(1, 77), (2, 2), (4, 4)]


async def test_registering_anew_replaces_the_identity_and_clears_the_pools(
    keys, keyed, shards
) -> None:
    ann = await keyed()
    await keys.upload(ann.caller, Upload(one_time=one_time_keys(3)))
    assert await put_keys(shards, ann.user_id, 1, ann.keys) == 1
    assert await keys.count(ann.caller) == (3, 0)
    anew = an_identity()

    assert await put_keys(shards, ann.user_id, 1, device_keys(anew)) == 1

    assert await keys.count(ann.caller) == (0, 0)
    with pytest.raises(KeySignatureInvalid):
        await keys.upload(ann.caller, Upload(signed=signed_key(ann.identity)))
    await keys.upload(ann.caller, Upload(signed=signed_key(anew)))


async def test_a_device_learns_whether_the_server_holds_what_it_holds(keys, keyed) -> None:
    ann = await keyed()
    signed, last = ann.keys.signed, ann.keys.last_resort
    digest = hashlib.sha256(
        ann.identity.public
        + signed.id.to_bytes(8, "big")
        + signed.public_key
        + last.id.to_bytes(8, "big")
        + last.public_key
    ).digest()

    assert await keys.check(ann.caller, digest)
    assert not await keys.check(ann.caller, bytes(32))
    await keys.upload(ann.caller, Upload(signed=signed_key(ann.identity, 9)))
    assert not await keys.check(ann.caller, digest)


async def test_only_identities_that_differ_are_told(keys, keyed, bulk_accounts) -> None:
    people = [await keyed() for _ in range(6)]
    [keyless] = await bulk_accounts(1)
    known = {p.user_id: hashlib.sha256(p.identity.public).digest()[:4] for p in people}
    known[people[2].user_id] = known[people[4].user_id] = b"none"
    known[keyless.user_id] = known[new_ulid()] = b"none"

    changed = await keys.changed_identities(people[0].caller, known)

    assert changed == {p.user_id: p.identity.public for p in (people[2], people[4])}


async def test_a_seventh_fetch_of_one_device_is_refused_for_that_caller_only(keys, keyed) -> None:
    ann, bob, carol = await keyed(), await keyed(), await keyed()
    for _ in range(6):
        await keys.fetch(bob.caller, ann.user_id, 0)

    with pytest.raises(RateLimited) as refused:
        await keys.fetch(bob.caller, ann.user_id, 1)

    assert timedelta(minutes=9) < refused.value.retry_after <= timedelta(minutes=10)
    await keys.fetch(carol.caller, ann.user_id, 1)
    await keys.fetch(bob.caller, carol.user_id, 1)


async def test_of_all_devices_only_those_that_were_asked_for_too_often_are_left_out(
    keys, keyed, shards
) -> None:
    ann, bob = await keyed(), await keyed()
    for _ in range(6):
        await keys.fetch(bob.caller, ann.user_id, 0)
    await _new_device(shards, ann, 2)
    await put_keys(shards, ann.user_id, 2, device_keys(ann.identity))

    for _ in range(6):
        assert [b.device_id for b in (await keys.fetch(bob.caller, ann.user_id, 0)).bundles] == [2]
    with pytest.raises(RateLimited):
        await keys.fetch(bob.caller, ann.user_id, 0)


async def test_a_device_that_registered_anew_is_another_to_the_limit(keys, keyed, shards) -> None:
    ann, bob = await keyed(), await keyed()
    for _ in range(6):
        await keys.fetch(bob.caller, ann.user_id, 1)
    await put_keys(shards, ann.user_id, 1, device_keys(an_identity(), registration_id=78))

    fetched = await keys.fetch(bob.caller, ann.user_id, 1)

    assert fetched.bundles[0].registration_id == 78


async def test_a_drained_target_keeps_its_pool_and_its_last_resort_answers(
    keys, keyed, bulk_accounts
) -> None:
    ann = await keyed()
    crowd = [Caller(account.user_id, 1, 1) for account in await bulk_accounts(102)]
    await keys.upload(ann.caller, Upload(one_time=one_time_keys(100)))
    for stranger in crowd[:60]:
        await keys.fetch(stranger, ann.user_id, 1)
    await keys.upload(ann.caller, Upload(one_time=one_time_keys(100)))
    for stranger in crowd[60:100]:
        await keys.fetch(stranger, ann.user_id, 1)

    [bundle] = (await keys.fetch(crowd[100], ann.user_id, 1)).bundles
    await keys.fetch(crowd[101], ann.user_id, 1)

    assert (bundle.one_time, bundle.kem) == (None, ann.keys.last_resort)
    assert await keys.count(ann.caller) == (60, 0)


async def test_without_redis_nothing_is_given_out(store, keyed, low) -> None:
    ann, bob = await keyed(), await keyed()
    async with open_redis("redis://127.0.0.1:1/0") as nowhere:
        keys = Keys(store, Buckets(nowhere, prefix="t:"), on_low=low)
        await keys.upload(ann.caller, Upload(one_time=one_time_keys(1)))

        with pytest.raises(Unavailable):
            await keys.fetch(bob.caller, ann.user_id, 1)

        assert await keys.count(ann.caller) == (1, 0)


async def test_a_device_that_runs_out_is_told(keys, keyed, low) -> None:
    ann, bob = await keyed(), await keyed()
    await keys.upload(
        ann.caller,
        Upload(one_time=one_time_keys(22), one_time_kem=kem_keys(ann.identity, 22)),
    )

    await _ids(keys, bob.caller, ann, 4)

    assert low == [((ann.user_id, 1), 19, 19), ((ann.user_id, 1), 18, 18)]


async def test_a_caller_whose_credential_is_over_gets_nothing(keys, keyed, shards) -> None:
    ann, bob = await keyed(), await keyed()
    pool = shards.pool(shards.shard_of(slot_of(ann.user_id)))
    await pool.execute("SELECT remove_device($1, 1::smallint)", ann.user_id)

    for call in (
        keys.fetch(ann.caller, bob.user_id, 1),
        keys.upload(ann.caller, Upload(signed=signed_key(ann.identity))),
        keys.count(ann.caller),
        keys.check(ann.caller, b""),
        keys.changed_identities(ann.caller, {bob.user_id: b"none"}),
    ):
        with pytest.raises(DeviceRevoked):
            await call
    with pytest.raises(KeysUnknown):
        await keys.fetch(bob.caller, ann.user_id, 0)


@pytest.mark.parametrize(
    "count", [100, pytest.param(1_000, marks=[pytest.mark.soak, pytest.mark.timeout(1_800)])]
)
async def test_parallel_takes_give_no_key_twice_and_the_oldest_first(
    store, shards, bulk_accounts, count
) -> None:
    identity, pool = an_identity(), Upload(one_time=one_time_keys())
    devices = [Caller(account.user_id, 1, 1) for account in await bulk_accounts(count)]
    keys = device_keys(identity)
    for device in devices:
        await put_keys(shards, device.user_id, 1, keys)
        await store.upload(device, identity.public, pool)
    given: dict[bytes, list[int]] = {device.user_id: [] for device in devices}
    takes = [*given] * 100
    random.Random(count).shuffle(takes)

    async def take_all(users) -> None:
        for user_id in users:
            [taken] = await store.take(user_id, [1], pools=True)
            if taken.bundle.one_time is not None:
                given[user_id].append(taken.bundle.one_time.id)

    async with asyncio.TaskGroup() as takers:
        for offset in range(8):
            takers.create_task(take_all(takes[offset::8]))

    # One may find the last keys of a pool in other hands, and go without.
    assert len(takes) * 0.99 < sum(map(len, given.values())) <= len(takes)
    for ids in given.values():
        assert sorted(ids) == [*range(1, len(ids) + 1)]
