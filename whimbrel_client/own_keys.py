"""This device's private keys in the local store: the SQL of them, each call in a transaction."""

from whimbrel_client.crypto import (
    Device,
    KemKeyPair,
    KemPrekey,
    KeyPair,
    OneTimePrekey,
    PrekeyMessage,
    PrivatePrekeys,
    RepeatedMessage,
    SignedPrekey,
    Spent,
    curve,
)
from whimbrel_client.device_keys import POOL, OwnKeys, Pools, new_keys, new_pools
from whimbrel_client.sqlcipher import Connection

# One-time keys that were handed out, and whose message may still be on its way, are kept so long.
_KEPT_POOLS = 10

_OWN = "SELECT identity, registration_id FROM own_identity"
_PUT_OWN = (
    "INSERT INTO own_identity (id, identity, registration_id, next_key_id) VALUES (1, ?, ?, 2)"
)
_TAKE_IDS = "UPDATE own_identity SET next_key_id = next_key_id + ? RETURNING next_key_id"
_SIGNED = "SELECT id, private, signature FROM signed_prekey WHERE id = ?"
_NEWEST_SIGNED = "SELECT id, private, signature FROM signed_prekey ORDER BY id DESC LIMIT 1"
_PUT_SIGNED = "INSERT INTO signed_prekey (id, private, signature) VALUES (?, ?, ?)"
_KEM = "SELECT id, public, seed, signature, is_last_resort FROM kem_prekey WHERE id = ?"
_NEWEST_LAST_RESORT = """
SELECT id, public, seed, signature, is_last_resort FROM kem_prekey
WHERE is_last_resort ORDER BY id DESC LIMIT 1
"""
_PUT_KEM = """
INSERT INTO kem_prekey (id, public, seed, signature, is_last_resort) VALUES (?, ?, ?, ?, ?)
"""
_ONE_TIME = "SELECT id, private FROM one_time_prekey WHERE id = ?"
_PUT_ONE_TIME = "INSERT INTO one_time_prekey (id, private) VALUES (?, ?)"
_DROP_ONE_TIME = "DELETE FROM one_time_prekey WHERE id = ?"
_DROP_KEM = "DELETE FROM kem_prekey WHERE id = ? AND NOT is_last_resort"
_DROP_OLD_ONE_TIME = "DELETE FROM one_time_prekey WHERE id < ?"
_DROP_OLD_KEM = "DELETE FROM kem_prekey WHERE id < ? AND NOT is_last_resort"
_USED = """
SELECT 1 FROM last_resort_use WHERE kem_id = ? AND signed_id = ? AND base_key = ?
"""
_USE = "INSERT INTO last_resort_use (kem_id, signed_id, base_key) VALUES (?, ?, ?)"


def own_keys(connection: Connection) -> OwnKeys | None:
    """This device's keys; None before it has made them."""
    row = connection.execute(_OWN).fetchone()
    if row is None:
        return None
    signed = connection.execute(_NEWEST_SIGNED).fetchone()
    last_resort = connection.execute(_NEWEST_LAST_RESORT).fetchone()
    return OwnKeys(Device(curve.pair_of(row[0]), row[1]), _signed(signed), _kem(last_resort))


def own_keys_or_new(connection: Connection, identity: KeyPair | None = None) -> OwnKeys:
    """This device's keys, made when there are none, or none of this identity."""
    known = own_keys(connection)
    if known is not None and identity in {None, known.device.identity}:
        return known
    for table in ("own_identity", "signed_prekey", "kem_prekey", "one_time_prekey"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    return _keep(connection, new_keys(identity))


def _keep(connection: Connection, keys: OwnKeys) -> OwnKeys:
    """Keep the keys of a new device."""
    device = keys.device
    connection.execute(_PUT_OWN, (device.identity.private, device.registration_id))
    signed = keys.signed
    connection.execute(_PUT_SIGNED, (signed.id, signed.pair.private, signed.signature))
    connection.execute(_PUT_KEM, _kem_row(keys.last_resort))
    return keys


def pools(connection: Connection, device: Device) -> Pools:
    """New one-time keys, kept before anybody is told of them."""
    (next_id,) = connection.execute(_TAKE_IDS, (POOL,)).fetchone()
    fresh = new_pools(device.identity, next_id - POOL)
    connection.executemany(_PUT_ONE_TIME, [(key.id, key.pair.private) for key in fresh.one_time])
    connection.executemany(_PUT_KEM, [_kem_row(key) for key in fresh.one_time_kem])
    oldest = next_id - _KEPT_POOLS * POOL
    connection.execute(_DROP_OLD_ONE_TIME, (oldest,))
    connection.execute(_DROP_OLD_KEM, (oldest,))
    return fresh


def prekeys_of(connection: Connection, message: PrekeyMessage) -> PrivatePrekeys | None:
    """The private halves that a first message names; None if one of them is gone.

    Raises RepeatedMessage if it comes again to a key that outlives its use.
    """
    use = (message.kem_id, message.signed_id, message.base_key)
    if connection.execute(_USED, use).fetchone() is not None:
        raise RepeatedMessage("the first message was read already")
    signed = connection.execute(_SIGNED, (message.signed_id,)).fetchone()
    kem = connection.execute(_KEM, (message.kem_id,)).fetchone()
    if signed is None or kem is None:
        return None
    if message.one_time_id is None:
        return PrivatePrekeys(_signed(signed), _kem(kem))
    one_time = connection.execute(_ONE_TIME, (message.one_time_id,)).fetchone()
    if one_time is None:
        return None
    key = OneTimePrekey(one_time[0], curve.pair_of(one_time[1]))
    return PrivatePrekeys(_signed(signed), _kem(kem), key)


def spend(connection: Connection, spent: Spent) -> None:
    """What a message that was read has used up: deleted, or remembered as used."""
    if spent.one_time_id is not None:
        connection.execute(_DROP_ONE_TIME, (spent.one_time_id,))
    if spent.one_time_kem_id is not None:
        connection.execute(_DROP_KEM, (spent.one_time_kem_id,))
    if spent.last_resort is not None:
        use = spent.last_resort
        connection.execute(_USE, (use.kem_id, use.signed_id, use.base_key))


def _signed(row: tuple[int, bytes, bytes]) -> SignedPrekey:
    key_id, private, signature = row
    return SignedPrekey(key_id, curve.pair_of(private), signature)


def _kem(row: tuple[int, bytes, bytes, bytes, int]) -> KemPrekey:
    key_id, public, seed, signature, is_last_resort = row
    return KemPrekey(key_id, KemKeyPair(public, seed), signature, bool(is_last_resort))


def _kem_row(key: KemPrekey) -> tuple[int, bytes, bytes, bytes, bool]:
    return key.id, key.pair.public, key.pair.seed, key.signature, key.is_last_resort
