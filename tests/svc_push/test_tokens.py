"""Whose a token is, how it is kept, and what is no token."""

import json
import os
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.clock import SystemClock
from mesh.postgres import fetch, open_pool
from svc_push.model import Device, Provider, ProviderOff, Subscription, TokenInvalid
from svc_push.providers.webpush import _point
from svc_push.sealing import Seal, SealBroken
from svc_push.store import TokenStore
from svc_push.tokens import Tokens
from tests.svc_push.conftest import a_device, now

_NO_POINT = b"\x04" + bytes(64)


@pytest.fixture
def tokens(store, jobs) -> Tokens:
    return Tokens(store, jobs, list(Provider), keep=timedelta(days=90), clock=SystemClock())


async def test_a_token_takes_the_place_of_the_one_before(tokens, store):
    device = a_device()

    await tokens.set_apns(device, b"first")
    await tokens.set_fcm(device, "second")

    found = await store.find(device)
    assert (found.provider, found.secret) == (Provider.FCM, b"second")


async def test_a_token_that_turns_up_with_another_device_leaves_the_first(tokens, store):
    first, second = a_device(), a_device()
    await tokens.set_apns(first, b"shared")

    await tokens.set_apns(second, b"shared")

    assert await store.find(first) is None
    assert (await store.find(second)).secret == b"shared"


async def test_two_devices_of_an_account_keep_their_tokens_apart(tokens, store):
    one = a_device()
    other = replace(one, device_id=2)
    await tokens.set_apns(one, b"one")
    await tokens.set_apns(other, b"other")

    await tokens.remove(one)

    assert await store.find(one) is None
    assert (await store.find(other)).secret == b"other"


async def test_an_end_that_is_told_late_leaves_the_token_of_whoever_came_after(tokens, store):
    device = a_device()
    ended_at = now() - timedelta(minutes=1)
    await tokens.set_apns(device, b"of the next one")

    await tokens.remove(device, set_before=ended_at)

    assert await store.find(device) is not None


async def test_what_is_stored_holds_no_token_and_opens_for_its_device_alone(
    tokens, store, push_database
):
    one, other = a_device(), a_device()
    await tokens.set_fcm(one, "canary-token")
    await tokens.set_fcm(other, "another-token")

    async with open_pool(push_database, size=1, application_name="test") as pool:
        rows = await fetch(pool, "SELECT * FROM push_token")
        assert b"canary" not in b"".join(row["sealed"] + row["digest"] for row in rows)
        await fetch(
            pool,
            "UPDATE push_token SET sealed = (SELECT sealed FROM push_token WHERE user_id = $1)"
            " WHERE user_id = $2",
            *(one.user_id, other.user_id),
        )

    with pytest.raises(SealBroken):
        await store.find(other)


async def test_a_sweep_seals_anew_what_is_under_an_older_key(tokens, jobs, push_database, tmp_path):
    device, newer = a_device(), os.urandom(32).hex()
    older_file = json.loads((tmp_path / "token-keys.json").read_text())
    await tokens.set_apns(device, b"token")
    both, newest = tmp_path / "both.json", tmp_path / "newest.json"
    both.write_text(json.dumps({"k2": newer, **older_file}))
    newest.write_text(json.dumps({"k2": newer}))

    async with open_pool(push_database, size=1, application_name="test") as pool:
        rotating = TokenStore(pool, Seal.load(both))
        await Tokens(rotating, jobs, [], keep=timedelta(days=90), clock=SystemClock()).sweep()
        found = await TokenStore(pool, Seal.load(newest)).find(device)

    assert found.secret == b"token"


async def test_a_sweep_forgets_tokens_that_nobody_registers_any_more(store, jobs):
    old, fresh = a_device(), a_device()
    await store.set(old, Provider.APNS, b"old", now() - timedelta(days=91))
    await store.set(fresh, Provider.APNS, b"fresh", now())
    tokens = Tokens(store, jobs, [], keep=timedelta(days=90), clock=SystemClock())

    await tokens.sweep()

    assert await store.find(old) is None
    assert await store.find(fresh) is not None


async def test_a_token_that_was_registered_again_meanwhile_is_not_removed(store):
    device = a_device()
    await store.set(device, Provider.APNS, b"token", now() - timedelta(seconds=1))
    read = await store.find(device)
    await store.set(device, Provider.APNS, b"token", now())

    assert not await store.remove_as_read(device, read)
    assert await store.find(device) is not None


def subscription(endpoint="https://push.example/1", p256dh=None, auth=bytes(16)) -> Subscription:
    point = _point(ec.generate_private_key(ec.SECP256R1()).public_key())
    return Subscription(endpoint, point if p256dh is None else p256dh, auth)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("web_push.endpoint", subscription("http://push.example/1")),
        ("web_push.endpoint", subscription("https://user@push.example/1")),
        ("web_push.endpoint", subscription("https:///nowhere")),
        ("web_push.endpoint", subscription("https://push.example:99999/")),
        ("web_push.endpoint", subscription("https://push.example/a b")),
        ("web_push.p256dh", subscription(p256dh=_NO_POINT)),
        ("web_push.p256dh", subscription(p256dh=b"")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_token_is_refused_by_name(tokens, store, field, told):
    device = a_device()
    kind = field.partition(".")[0]

    with pytest.raises(TokenInvalid) as refused:
        await getattr(tokens, f"set_{kind}")(device, told)

    assert refused.value.metadata["field"] == field
    assert refused.value.metadata["allowed"]
    assert "push.example" not in str(refused.value)
    assert await store.find(device) is None


async def test_a_provider_without_access_is_refused_by_name(store, jobs):
    tokens = Tokens(store, jobs, [], keep=timedelta(days=90), clock=SystemClock())

    with pytest.raises(ProviderOff) as refused:
        await tokens.set_apns(Device(bytes(16), 1), b"token")

    assert refused.value.metadata == {"provider": "APNS"}


@pytest.mark.parametrize("content", ["{}", "[]", "nonsense", '{"k": "ab"}', '{"k": 1}'])
def test_keys_that_are_none_stop_the_start_and_are_not_shown(tmp_path, content):
    (tmp_path / "keys").write_text(content)

    with pytest.raises(ValueError) as refused:
        Seal.load(tmp_path / "keys")

    assert content not in str(refused.value).replace(str(tmp_path), "")
