"""Public keys on the wire: proto to model and back; decides nothing."""

from svc_message.identity.keys_model import Bundle, DeviceKeys, OneTimeKey, SignedKey, Upload
from whimbrel.identity.v1 import keys_pb2


def read_device_keys(message: keys_pb2.DeviceKeys) -> DeviceKeys:
    """The keys of a new device."""
    return DeviceKeys(
        message.identity_key,
        message.registration_id,
        _signed(message.signed_prekey),
        _signed(message.last_resort_prekey),
    )


def read_upload(request: keys_pb2.UploadKeysRequest) -> Upload:
    """The keys that are to replace others."""
    return Upload(
        _signed(request.signed_prekey) if request.HasField("signed_prekey") else None,
        _signed(request.last_resort_prekey) if request.HasField("last_resort_prekey") else None,
        [OneTimeKey(key.key_id, key.public_key) for key in request.one_time_prekeys],
        [_signed(key) for key in request.one_time_kem_prekeys],
    )


def fill_bundle(into: keys_pb2.KeyBundle, bundle: Bundle) -> None:
    """Write what opens a session."""
    into.device_id, into.registration_id = bundle.device_id, bundle.registration_id
    _fill(into.signed_prekey, bundle.signed)
    _fill(into.kem_prekey, bundle.kem)
    if bundle.one_time is not None:
        into.one_time_prekey.key_id = bundle.one_time.id
        into.one_time_prekey.public_key = bundle.one_time.public_key


def _signed(key: keys_pb2.SignedEcPrekey | keys_pb2.KemPrekey) -> SignedKey:
    return SignedKey(key.key_id, key.public_key, key.signature)


def _fill(into: keys_pb2.SignedEcPrekey | keys_pb2.KemPrekey, key: SignedKey) -> None:
    into.key_id, into.public_key, into.signature = key.id, key.public_key, key.signature
