import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from mesh.auth import TokenSigner
from mesh.caller import Caller
from mesh.errors import PermissionDenied
from mesh.ids import slot_of
from mesh.testing import ManualClock
from svc_message.identity.accounts import Accounts
from svc_message.identity.devices_model import DeviceRevoked
from svc_message.identity.model import DeviceUnknown, SignatureInvalid
from svc_message.identity.store import AccountStore

_DAYS_45 = timedelta(days=45)


def _pool(shards, user_id):
    return shards.pool(shards.shard_of(slot_of(user_id)))


async def _open(shards, caller):
    """(outcome, epoch) of an Open, as a gateway asks for it."""
    slot = slot_of(caller.user_id)
    row = await _pool(shards, caller.user_id).fetchrow(
        "SELECT * FROM open($1, $1, $2, $3, $4)",
        [slot],
        [caller.user_id],
        [caller.device_id],
        [caller.credential_version],
    )
    return row["outcome"], row["epoch"]


async def _see(shards, caller, days_ago) -> None:
    await _pool(shards, caller.user_id).execute(
        "UPDATE device SET last_seen_on = (now() AT TIME ZONE 'UTC')::date - $3::integer"
        " WHERE user_id = $1 AND device_id = $2",
        caller.user_id,
        caller.device_id,
        days_ago,
    )


@pytest.fixture
def clock() -> ManualClock:
    """Stands still today, because the shards know what day it is."""
    return ManualClock(datetime.now(UTC))


async def test_a_revoked_device_is_out_at_once_and_the_gateways_are_told(
    devices, keyed, linked, revoked, shards
) -> None:
    ann = await keyed()
    tablet, phone = await linked(ann), await linked(ann)
    assert await _open(shards, tablet) == (1, 1)

    await devices.revoke(ann.caller, tablet.device_id)

    # Sessions of epoch 1 end; the next one to be opened is above all that are told to end.
    assert revoked == [((ann.user_id, 2), 2)]
    assert (await _open(shards, tablet))[0] == 31
    assert [device.device_id for device in await devices.list(ann.caller)] == [1, 3]
    assert (await _open(shards, phone))[0] == 1


async def test_a_revoked_device_that_goes_on_gets_nothing(devices, keyed, linked) -> None:
    ann = await keyed()
    tablet = await linked(ann)
    await devices.revoke(ann.caller, tablet.device_id)

    for _ in range(2):
        with pytest.raises(DeviceRevoked):
            await devices.list(tablet)
        with pytest.raises(DeviceRevoked):
            await devices.rename(tablet, 2, b"mine")
        # Also when another device has its id by now.
        await linked(ann)


async def test_revoking_again_tells_the_gateways_again(devices, keyed, linked, revoked) -> None:
    ann = await keyed()
    tablet = await linked(ann)

    await asyncio.gather(*(devices.revoke(ann.caller, tablet.device_id) for _ in range(4)))

    assert revoked == [((ann.user_id, 2), 1)] * 4


async def test_a_linked_device_unlinks_only_itself(devices, keyed, linked, revoked) -> None:
    ann, bob = await keyed(), await keyed()
    tablet, phone = await linked(ann), await linked(ann)
    bobs = await linked(bob)

    with pytest.raises(PermissionDenied):
        await devices.revoke(tablet, phone.device_id)
    for caller in (tablet, ann.caller):
        with pytest.raises(PermissionDenied):
            await devices.revoke(caller, 1)
    for device_id in (0, 4, 999):
        with pytest.raises(DeviceUnknown):
            await devices.revoke(ann.caller, device_id)
    assert revoked == []

    await devices.revoke(tablet, tablet.device_id)
    await devices.revoke(tablet, tablet.device_id)  # a repetition of the call, say

    assert [device.device_id for device in await devices.list(ann.caller)] == [1, 3]
    assert len(await devices.list(bobs)) == 2


async def test_an_old_token_does_not_revoke_the_device_that_has_its_id_now(
    devices, keyed, linked
) -> None:
    ann = await keyed()
    old = await linked(ann)
    await devices.revoke(ann.caller, old.device_id)
    assert (await linked(ann)).device_id == old.device_id

    with pytest.raises(DeviceRevoked):
        await devices.revoke(old, old.device_id)

    assert len(await devices.list(ann.caller)) == 2


async def test_any_device_of_the_account_names_any(devices, keyed, linked) -> None:
    ann = await keyed()
    tablet = await linked(ann)

    await devices.rename(tablet, 1, b"phone")
    await devices.rename(ann.caller, 2, b"tablet")

    names = [device.encrypted_name for device in await devices.list(ann.caller)]
    assert names == [b"phone", b"tablet"]
    with pytest.raises(DeviceUnknown):
        await devices.rename(ann.caller, 3, b"nobody")
    with pytest.raises(DeviceUnknown):
        await devices.rename(ann.caller, 999, b"nobody")


async def test_the_day_of_the_last_open_is_kept(devices, keyed, linked, shards) -> None:
    ann = await keyed()
    tablet = await linked(ann)

    await _open(shards, tablet)

    [primary, second] = await devices.list(ann.caller)
    today = datetime.now(UTC).date()
    assert second.last_seen_on in (today, today - timedelta(days=1))
    assert primary.last_seen_on is None


async def test_idle_devices_are_unlinked_but_never_a_primary(
    devices, keyed, linked, revoked, shards, clock
) -> None:
    ann, bob = await keyed(), await keyed()
    idle, busy, new = await linked(ann), await linked(ann), await linked(bob)
    await _see(shards, ann.caller, 400)
    await _see(shards, idle, 46)
    await _see(shards, busy, 44)

    assert await devices.sweep(idle_after=_DAYS_45) == 1

    assert revoked == [((ann.user_id, idle.device_id), 1)]
    assert [device.device_id for device in await devices.list(ann.caller)] == [1, 3]
    assert len(await devices.list(new)) == 2
    assert await devices.sweep(idle_after=_DAYS_45) == 0


async def test_a_device_that_never_came_is_idle_from_its_linking_on(
    devices, keyed, linked, shards, clock
) -> None:
    ann = await keyed()
    await linked(ann)
    await _pool(shards, ann.user_id).execute(
        "UPDATE device SET linked_at = now() - interval '47 days' WHERE user_id = $1", ann.user_id
    )

    assert await devices.sweep(idle_after=_DAYS_45) == 1

    assert len(await devices.list(Caller(ann.user_id, 1, 1))) == 1


async def test_a_device_that_renews_its_token_is_not_idle_though_its_stream_stays_open(
    devices, keyed, new_device, signing_keys, shards, clock
) -> None:
    ann = await keyed()
    tablet = new_device(ann)
    token = (await devices.create_link_token(ann.caller)).token
    access = await tablet.link(devices, ann.user_id, token)
    caller = Caller(ann.user_id, access.device_id, 1)
    await _see(shards, caller, 50)
    signer = TokenSigner(signing_keys.private_key, signing_keys.key_id, clock=clock)
    accounts = Accounts(AccountStore(shards), None, signer, clock=clock)
    at = int(clock.now().timestamp() * 1000)
    named = ann.user_id + (2).to_bytes(4, "big")
    proof = b"whimbrel refresh v1\0" + named + b"\0" + at.to_bytes(8, "big")

    with pytest.raises(SignatureInvalid):
        await accounts.refresh(ann.user_id, 2, signed_at=at, signature=bytes(64))
    [_, before] = await devices.list(ann.caller)
    await accounts.refresh(ann.user_id, 2, signed_at=at, signature=tablet.key.sign(proof))
    [_, after] = await devices.list(ann.caller)

    assert (after.last_seen_on - before.last_seen_on).days == 50
    assert await devices.sweep(idle_after=_DAYS_45) == 0
