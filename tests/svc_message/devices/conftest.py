"""Accounts with keys on two real shards, and buckets in a real Redis."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from mesh.ids import slot_of
from mesh.redis import open_redis
from svc_message.identity.buckets import Buckets
from svc_message.identity.caller import Caller
from svc_message.identity.keys import Keys
from svc_message.identity.keys_model import DeviceKeys
from svc_message.identity.keys_store import KeyStore
from tests.svc_message.devices.key_making import an_identity, device_keys
from whimbrel_client.crypto import curve

_PUT = "SELECT put_device_keys($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"


@dataclass
class Keyed:
    """An account's device with an identity and keys."""

    caller: Caller
    identity: curve.KeyPair
    keys: DeviceKeys

    @property
    def user_id(self) -> bytes:
        return self.caller.user_id


class LowPrekeyLog(list):
    """Whom the key server has told to refill: (device, EC left, KEM left)."""

    def __call__(self, device, ec_left, kem_left) -> None:
        self.append((device, ec_left, kem_left))


async def put_keys(shards, user_id, device_id, keys) -> int:
    """What Register does with the keys of a new device."""
    pool = shards.pool(shards.shard_of(slot_of(user_id)))
    return await pool.fetchval(_PUT, user_id, device_id, *keys.columns)


@pytest.fixture
def keyed(shards, bulk_accounts) -> Callable[[], Awaitable[Keyed]]:
    """`ann = await keyed()`: an account whose primary has keys."""

    async def make() -> Keyed:
        [account] = await bulk_accounts(1)
        identity = an_identity()
        keys = device_keys(identity)
        assert await put_keys(shards, account.user_id, 1, keys) == 1
        return Keyed(Caller(account.user_id, 1, 1), identity, keys)

    return make


@pytest.fixture
async def redis(redis_url):
    async with open_redis(redis_url, wait=timedelta(seconds=30)) as redis:
        yield redis


@pytest.fixture
def store(shards) -> KeyStore:
    return KeyStore(shards)


@pytest.fixture
def low() -> LowPrekeyLog:
    return LowPrekeyLog()


@pytest.fixture
def keys(store, redis, low) -> Keys:
    return Keys(store, Buckets(redis, prefix="t:"), on_low=low)
