from dataclasses import replace

import pytest
import xeddsa

from svc_message.identity.keys_model import (
    KeyInvalid,
    KeySignatureInvalid,
    OneTimeKey,
    SignedKey,
    Upload,
)
from svc_message.identity.xeddsa import is_public_key, verifies
from tests.svc_message.devices.key_making import (
    an_identity,
    device_keys,
    kem_key,
    kem_keys,
    one_time_keys,
    signed_key,
)
from whimbrel_client.crypto import curve, randomness

IDENTITY = an_identity()
PRIME = 2**255 - 19


def _ec(u: int) -> bytes:
    return b"\x05" + u.to_bytes(32, "little")


def _flipped(content: bytes, place: int = 40) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_what_a_device_makes_may_be_stored() -> None:
    device_keys(IDENTITY).check()
    Upload(
        signed_key(IDENTITY),
        kem_key(IDENTITY),
        one_time_keys(100),
        kem_keys(IDENTITY, 3),
    ).check(IDENTITY.public)
    Upload().check(IDENTITY.public)


def test_both_signs_of_an_edwards_key_verify() -> None:
    private = randomness.draw(32)
    public = curve.pair_of(private).public

    for negative in (False, True):
        scalar = xeddsa.priv_force_sign(private, set_sign_bit=negative)
        plain = xeddsa.ed25519_priv_sign(scalar, b"content", randomness.draw(64))
        told = plain[:-1] + bytes([plain[-1] | (0x80 * negative)])

        assert verifies(public, b"content", told)
        assert verifies(public, b"content", plain) is not negative


def test_another_s_signature_or_content_does_not_verify() -> None:
    signature = curve.sign(IDENTITY.private, b"content")

    assert verifies(IDENTITY.public, b"content", signature)
    assert not verifies(IDENTITY.public, b"other", signature)
    assert not verifies(IDENTITY.public, b"content", signature[:-1])
    assert not verifies(an_identity().public, b"content", signature)


@pytest.mark.parametrize("u", [0, 1, PRIME - 1, PRIME, PRIME + 1, 2**255 + 9, 2**256 - 1])
def test_a_key_of_small_order_or_of_another_form_is_none(u) -> None:
    assert not is_public_key(_ec(u))
    assert not verifies(_ec(u), b"content", bytes(64))


@pytest.mark.parametrize(
    "public_key",
    [b"", b"\x05", bytes(33), IDENTITY.public[1:], b"\x06" + IDENTITY.public[1:], _ec(9) + b"\0"],
    ids=["empty", "prefix", "zeros", "unprefixed", "other-prefix", "too-long"],
)
def test_malformed_ec_keys_are_refused_everywhere(public_key) -> None:
    keys = device_keys(IDENTITY)
    signed = SignedKey(1, public_key, curve.sign(IDENTITY.private, public_key))

    with pytest.raises(KeyInvalid) as refused:
        replace(keys, identity_key=public_key).check()
    assert refused.value.metadata["field"] == "identity_key"
    with pytest.raises(KeyInvalid):
        replace(keys, signed=signed).check()
    with pytest.raises(KeyInvalid):
        Upload(one_time=[OneTimeKey(1, public_key)]).check(IDENTITY.public)


def test_malformed_kem_keys_are_refused_though_they_are_signed() -> None:
    good = kem_key(IDENTITY).public_key
    for public_key in (
        b"",
        b"\x08",
        good[1:],
        good[:-1],
        b"\x05" + good[1:],
        b"\x08" + b"\xff" * 1568,
    ):
        key = SignedKey(1, public_key, curve.sign(IDENTITY.private, public_key))

        with pytest.raises(KeyInvalid):
            replace(device_keys(IDENTITY), last_resort=key).check()
        with pytest.raises(KeyInvalid):
            Upload(one_time_kem=[key]).check(IDENTITY.public)


def test_forged_signatures_are_refused() -> None:
    stranger = an_identity()
    signed, kem = signed_key(IDENTITY), kem_key(IDENTITY)
    forgeries = [
        Upload(signed=signed_key(stranger)),
        Upload(signed=replace(signed, signature=_flipped(signed.signature))),
        Upload(signed=replace(signed, signature=b"")),
        Upload(last_resort=kem_key(stranger)),
        Upload(last_resort=replace(kem, public_key=_flipped(kem.public_key))),
        Upload(one_time_kem=[*kem_keys(IDENTITY, 2), kem_key(stranger, key_id=9)]),
    ]

    for forgery in forgeries:
        with pytest.raises(KeySignatureInvalid):
            forgery.check(IDENTITY.public)


def test_an_id_twice_is_refused() -> None:
    for upload in (
        Upload(one_time=[*one_time_keys(2), *one_time_keys(1)]),
        Upload(one_time_kem=[kem_key(IDENTITY)] * 2),
    ):
        with pytest.raises(KeyInvalid):
            upload.check(IDENTITY.public)
