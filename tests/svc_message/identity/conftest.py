"""Accounts on two real shards, with a clock that stands still, and people who sign."""

from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.auth import TokenSigner, TokenVerifier
from mesh.keys import KeySet
from mesh.testing import ManualClock
from svc_message.identity.accounts import Accounts
from svc_message.identity.store import AccountStore


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

    def proof_of_refresh(self, user_id, device_id=1, *, at=None) -> dict:
        at = self.now if at is None else at
        device = user_id + device_id.to_bytes(4, "big")
        signed = b"whimbrel refresh v1\0" + device + b"\0" + at.to_bytes(8, "big")
        return {"signed_at": at, "signature": self.key.sign(signed)}

    async def register(self, accounts, handle):
        proof = self.proof_of_register(handle)
        return await accounts.register(handle, self.public_key, **proof)


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
def accounts(store, keys, clock) -> Accounts:
    return Accounts(store, TokenSigner(keys.private_key, keys.key_id, clock=clock), clock=clock)


@pytest.fixture
def unstored(keys, clock) -> Accounts:
    """Accounts for what is refused before any shard is asked."""
    return Accounts(None, TokenSigner(keys.private_key, keys.key_id, clock=clock), clock=clock)


@pytest.fixture
def verifier(keys, clock) -> TokenVerifier:
    return TokenVerifier(keys.public_keys, clock=clock)


@pytest.fixture
def alice(clock) -> Person:
    return Person(clock)


@pytest.fixture
def mallory(clock) -> Person:
    return Person(clock)
