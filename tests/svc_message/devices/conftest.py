"""Accounts with keys on two real shards, and buckets in a real Redis."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.auth import TokenSigner, TokenVerifier
from mesh.caller import Caller
from mesh.ids import slot_of
from mesh.keys import KeySet
from mesh.redis import open_redis
from mesh.testing import ManualClock
from svc_message.identity.buckets import Buckets
from svc_message.identity.devices import Devices
from svc_message.identity.devices_store import DeviceStore
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


@dataclass
class NewDevice:
    """A device that is to be linked, and signs as the protos say."""

    clock: ManualClock
    identity: curve.KeyPair
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    registration_id: int = 500

    def __post_init__(self) -> None:
        self.keys = device_keys(self.identity, registration_id=self.registration_id)

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def request(self, user_id, token, *, at=None, **changes) -> dict:
        """The arguments of Devices.link."""
        at = int(self.clock.now().timestamp() * 1000) if at is None else at
        hashed = hashlib.sha256(token).digest()
        signed = b"whimbrel link v1\0" + user_id + hashed + at.to_bytes(8, "big")
        return {
            "user_id": user_id,
            "link_token": token,
            "public_key": self.public_key,
            "keys": self.keys,
            "name": b"a name",
            "signed_at": at,
            "signature": self.key.sign(signed),
        } | changes

    async def link(self, devices, user_id, token, **changes):
        return await devices.link(**self.request(user_id, token, **changes))


class RevocationLog(list):
    """Whose sessions the gateways were told to end."""

    async def __call__(self, device, below_epoch) -> None:
        self.append((device, below_epoch))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def signing_keys() -> KeySet:
    return KeySet.generate()


@pytest.fixture
def verifier(signing_keys, clock) -> TokenVerifier:
    return TokenVerifier(signing_keys.public_keys, clock=clock)


@pytest.fixture
def device_store(shards) -> DeviceStore:
    return DeviceStore(shards)


@pytest.fixture
def revoked() -> RevocationLog:
    return RevocationLog()


@pytest.fixture
def devices(device_store, signing_keys, clock, revoked) -> Devices:
    signer = TokenSigner(signing_keys.private_key, signing_keys.key_id, clock=clock)
    return Devices(device_store, signer, revoke=revoked, clock=clock)


@pytest.fixture
def new_device(clock) -> Callable[..., NewDevice]:
    """`phone = new_device(ann)`: a device whose keys are under ann's identity."""

    def make(owner: Keyed, **fields) -> NewDevice:
        return NewDevice(clock, owner.identity, **fields)

    return make


@pytest.fixture
def linked(devices, new_device) -> Callable[[Keyed], Awaitable[Caller]]:
    """`tablet = await linked(ann)`: another device of ann's, as a caller."""

    async def link(owner: Keyed) -> Caller:
        token = await devices.create_link_token(owner.caller)
        access = await new_device(owner).link(devices, owner.user_id, token.token)
        return Caller(access.user_id, access.device_id, 1)

    return link
