"""The keys of this device: made here and turned into what the key server takes; it keeps nothing.

Key ids ascend and are never used twice, so that a late message finds the key that it means.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from whimbrel.identity.v1 import keys_pb2
from whimbrel_client.crypto import (
    Bundle,
    Device,
    KemPrekey,
    KeyPair,
    OneTimePrekey,
    PublicPrekey,
    SignedPrekey,
    curve,
    kem_prekey,
    one_time_prekey,
    signed_prekey,
)

POOL = 100

_MOST_REGISTRATION_ID = 16380


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """What a device has from its first moment on."""

    device: Device
    signed: SignedPrekey
    last_resort: KemPrekey


@dataclass(frozen=True, slots=True)
class Pools:
    """Keys that open one session each."""

    one_time: Sequence[OneTimePrekey]
    one_time_kem: Sequence[KemPrekey]


def new_keys(identity: KeyPair | None = None) -> OwnKeys:
    """Keys for a new device; also a new identity unless the account has one."""
    identity = identity or curve.generate()
    registration_id = secrets.randbelow(_MOST_REGISTRATION_ID) + 1
    return OwnKeys(
        Device(identity, registration_id),
        signed_prekey(1, identity),
        kem_prekey(1, identity, last_resort=True),
    )


def new_pools(identity: KeyPair, first_id: int) -> Pools:
    """As many one-time keys as the server takes, their ids from `first_id` on."""
    ids = range(first_id, first_id + POOL)
    return Pools(
        [one_time_prekey(key_id) for key_id in ids],
        [kem_prekey(key_id, identity) for key_id in ids],
    )


def published(keys: OwnKeys) -> keys_pb2.DeviceKeys:
    """The public halves, for registering."""
    return keys_pb2.DeviceKeys(
        identity_key=keys.device.identity.public,
        registration_id=keys.device.registration_id,
        signed_prekey=keys_pb2.SignedEcPrekey(
            key_id=keys.signed.id,
            public_key=keys.signed.pair.public,
            signature=keys.signed.signature,
        ),
        last_resort_prekey=_kem(keys.last_resort),
    )


def upload_of(pools: Pools) -> keys_pb2.UploadKeysRequest:
    """The public halves, for the pools."""
    return keys_pb2.UploadKeysRequest(
        one_time_prekeys=[
            keys_pb2.EcPrekey(key_id=key.id, public_key=key.pair.public) for key in pools.one_time
        ],
        one_time_kem_prekeys=[_kem(key) for key in pools.one_time_kem],
    )


def bundles_of(fetched: keys_pb2.FetchKeysResponse) -> Iterable[tuple[int, Bundle]]:
    """Device by device, what opens a session; nothing of it is checked yet."""
    for bundle in fetched.bundles:
        one_time = bundle.one_time_prekey if bundle.HasField("one_time_prekey") else None
        yield (
            bundle.device_id,
            Bundle(
                identity=fetched.identity_key,
                registration_id=bundle.registration_id,
                signed=_public(bundle.signed_prekey),
                kem=_public(bundle.kem_prekey),
                one_time=None if one_time is None else (one_time.key_id, one_time.public_key),
            ),
        )


def _kem(key: KemPrekey) -> keys_pb2.KemPrekey:
    return keys_pb2.KemPrekey(key_id=key.id, public_key=key.pair.public, signature=key.signature)


def _public(key: keys_pb2.SignedEcPrekey | keys_pb2.KemPrekey) -> PublicPrekey:
    return PublicPrekey(key.key_id, key.public_key, key.signature)
