"""How a device keeps its identity and the private halves of its prekeys."""

from whimbrel.crypto.v1 import state_pb2
from whimbrel_client.crypto import curve, versioned
from whimbrel_client.crypto.errors import MalformedState
from whimbrel_client.crypto.kyber import KemKeyPair
from whimbrel_client.crypto.prekeys import KemPrekey, OneTimePrekey, SignedPrekey
from whimbrel_client.crypto.session import Device


def dump_device(device: Device) -> bytes:
    """Return the bytes that `load_device` turns into the same device again."""
    return versioned.dump(
        state_pb2.DeviceState(
            identity_private_key=device.identity.private, registration_id=device.registration_id
        )
    )


def load_device(stored: bytes) -> Device:
    """Raises MalformedState or StateTooNew."""
    state = state_pb2.DeviceState()
    versioned.load(state, stored)
    return Device(_pair(state.identity_private_key), state.registration_id)


def dump_one_time(prekey: OneTimePrekey) -> bytes:
    """Return the bytes that `load_one_time` turns into the same prekey again."""
    return versioned.dump(
        state_pb2.OneTimePrekeyState(id=prekey.id, private_key=prekey.pair.private)
    )


def load_one_time(stored: bytes) -> OneTimePrekey:
    """Raises MalformedState or StateTooNew."""
    state = state_pb2.OneTimePrekeyState()
    versioned.load(state, stored)
    return OneTimePrekey(state.id, _pair(state.private_key))


def dump_signed(prekey: SignedPrekey) -> bytes:
    """Return the bytes that `load_signed` turns into the same prekey again."""
    return versioned.dump(
        state_pb2.SignedPrekeyState(
            id=prekey.id, private_key=prekey.pair.private, signature=prekey.signature
        )
    )


def load_signed(stored: bytes) -> SignedPrekey:
    """Raises MalformedState or StateTooNew."""
    state = state_pb2.SignedPrekeyState()
    versioned.load(state, stored)
    return SignedPrekey(state.id, _pair(state.private_key), state.signature)


def dump_kem(prekey: KemPrekey) -> bytes:
    """Return the bytes that `load_kem` turns into the same prekey again."""
    return versioned.dump(
        state_pb2.KemPrekeyState(
            id=prekey.id,
            seed=prekey.pair.seed,
            public_key=prekey.pair.public,
            signature=prekey.signature,
            is_last_resort=prekey.is_last_resort,
        )
    )


def load_kem(stored: bytes) -> KemPrekey:
    """Raises MalformedState or StateTooNew."""
    state = state_pb2.KemPrekeyState()
    versioned.load(state, stored)
    pair = KemKeyPair(state.public_key, state.seed)
    return KemPrekey(state.id, pair, state.signature, state.is_last_resort)


def _pair(private: bytes) -> curve.KeyPair:
    if len(private) != curve.PRIVATE_KEY_SIZE:
        raise MalformedState("a private key is cut")
    return curve.pair_of(private)
