"""Accounts on two real shards, with a clock that stands still, and people who sign."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.auth import TokenSigner, TokenVerifier
from mesh.caller import Caller
from mesh.ids import slot_of
from mesh.keys import KeySet
from mesh.postgres import acquired
from mesh.redis import Redis, open_redis
from mesh.testing import ManualClock
from svc_message.identity.accounts import Accounts
from svc_message.identity.code_senders import CodeNotSent
from svc_message.identity.registering import Application
from svc_message.identity.servicer import Identity
from svc_message.identity.store import AccountStore
from svc_message.identity.wiring import build_identity


@dataclass
class Person:
    """Someone with a key, who signs as the protos say."""

    clock: ManualClock
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def now(self) -> int:
        return int(self.clock.now().timestamp() * 1000)

    def proof_of_register(self, handle, *, at=None) -> dict:
        at = self.now if at is None else at
        signed = b"whimbrel register v1\0" + handle.encode() + b"\0" + at.to_bytes(8, "big")
        return {"signed_at": at, "signature": self.key.sign(signed)}

    def proof_with_keys(self, handle, phone_number, keys) -> dict:
        names = handle.encode() + b"\0" + phone_number.encode() + b"\0"
        public = keys.identity_key + keys.signed.public_key + keys.last_resort.public_key
        signed = b"whimbrel register v2\0" + names + public + self.now.to_bytes(8, "big")
        return {"keys": keys, "signed_at": self.now, "signature": self.key.sign(signed)}

    def proof_of_refresh(self, user_id, device_id=1, *, at=None) -> dict:
        at = self.now if at is None else at
        device = user_id + device_id.to_bytes(4, "big")
        signed = b"whimbrel refresh v1\0" + device + b"\0" + at.to_bytes(8, "big")
        return {"signed_at": at, "signature": self.key.sign(signed)}

    def application(self, handle, *, at=None, **fields) -> Application:
        proof = self.proof_of_register(handle, at=at)
        fields = {"public_key": self.public_key, **proof, **fields}
        return Application(handle, **fields)

    def caller(self, access, device_id=1, credential_version=1) -> Caller:
        return Caller(access.user_id, device_id, credential_version)

    async def register(self, accounts, handle, **fields):
        return await accounts.register(self.application(handle, **fields))


@dataclass
class Phones:
    """A sender of codes that remembers them, and may be out of order."""

    codes: dict[str, str] = field(default_factory=dict)
    is_down: bool = False

    async def send(self, phone_number, code, expires_at) -> None:
        if self.is_down:
            raise CodeNotSent("down")
        self.codes[phone_number] = code


@dataclass
class Ended:
    """Where the ends of sessions are told."""

    devices: list = field(default_factory=list)

    async def revoke(self, device, below_epoch) -> None:
        self.devices.append((*device, below_epoch))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keys() -> KeySet:
    return KeySet.generate()


@pytest.fixture
def store(shards) -> AccountStore:
    return AccountStore(shards)


@pytest.fixture
def signer(keys, clock) -> TokenSigner:
    return TokenSigner(keys.private_key, keys.key_id, clock=clock)


@pytest.fixture
async def redis(redis_url) -> AsyncIterator[Redis]:
    async with open_redis(redis_url) as redis:
        await redis.flushdb()
        yield redis


@pytest.fixture
def phones() -> Phones:
    return Phones()


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def identity(shards, redis, signer, ended, phones, clock) -> Identity:
    """Accounts that need a handle only; who has a number may register it too."""
    return build_identity(shards, redis, signer, ended, phones, redis_prefix="test:", clock=clock)


@pytest.fixture
def strict(shards, redis, signer, ended, phones, clock) -> Identity:
    """Accounts that need a number."""
    return build_identity(
        shards,
        redis,
        signer,
        ended,
        phones,
        redis_prefix="test:",
        demands_number=True,
        clock=clock,
    )


@pytest.fixture
def accounts(identity) -> Accounts:
    return identity.accounts


@pytest.fixture
def unstored(signer, clock) -> Accounts:
    """Accounts for what is refused before any shard is asked."""
    return build_identity(None, None, signer, None, None, redis_prefix="", clock=clock).accounts


@pytest.fixture
def verifier(keys, clock) -> TokenVerifier:
    return TokenVerifier(keys.public_keys, clock=clock)


@pytest.fixture
def in_its_slot(shards):
    """Runs a statement on the shard of a key, which is its first argument."""

    async def run(key, statement, *arguments, slot=None):
        pool = shards.pool(shards.shard_of(slot_of(key) if slot is None else slot))
        async with acquired(pool, within=timedelta(seconds=10)) as connection:
            return await connection.fetch(statement, key, *arguments)

    return run


@pytest.fixture
def register_by_number(strict, phones):
    """`await register_by_number(alice, "alice", "+4911111111")`, with a code that was sent."""

    async def register(person, handle, number, **fields):
        if number not in phones.codes:
            await strict.codes.request(number)
        fields = {"phone_number": number, "code": phones.codes[number], **fields}
        return await person.register(strict.accounts, handle, **fields)

    return register


@pytest.fixture
def alice(clock) -> Person:
    return Person(clock)


@pytest.fixture
def mallory(clock) -> Person:
    return Person(clock)
