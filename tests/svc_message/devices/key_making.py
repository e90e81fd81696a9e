"""Keys as a device makes them, with the SDK's own protocol core."""

from functools import cache

from svc_message.identity.keys_model import DeviceKeys, OneTimeKey, SignedKey
from whimbrel_client.crypto import curve, prekeys


def an_identity() -> curve.KeyPair:
    return curve.generate()


def signed_key(identity, key_id=1) -> SignedKey:
    key = prekeys.signed_prekey(key_id, identity)
    return SignedKey(key.id, key.pair.public, key.signature)


def kem_key(identity, key_id=1) -> SignedKey:
    key = prekeys.kem_prekey(key_id, identity)
    return SignedKey(key.id, key.pair.public, key.signature)


def device_keys(identity, *, registration_id=77) -> DeviceKeys:
    return DeviceKeys(
        identity.public, registration_id, signed_key(identity), kem_key(identity, key_id=2)
    )


def one_time_keys(count=100, *, first=1) -> list[OneTimeKey]:
    return [OneTimeKey(first + number, _ec_keys()[number]) for number in range(count)]


def kem_keys(identity, count=100, *, first=1) -> list[SignedKey]:
    return [kem_key(identity, first + number) for number in range(count)]


@cache
def _ec_keys() -> list[bytes]:
    return [curve.generate().public for _ in range(101)]
