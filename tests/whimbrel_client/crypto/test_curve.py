"""X25519 and XEdDSA."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_client.crypto import InvalidKey, InvalidSignature, curve


def test_agreement_gives_the_values_of_rfc_7748() -> None:
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")

    shared = curve.agree(alice, curve.pair_of(bob).public)

    assert shared.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert curve.agree(bob, curve.pair_of(alice).public) == shared


@pytest.mark.parametrize(
    "public",
    [b"", b"\x05", bytes(32), b"\x08" + bytes(32), b"\x05" + bytes(33)],
    ids=["empty", "cut", "untyped", "of another type", "too long"],
)
def test_what_is_no_public_key_is_refused(public: bytes) -> None:
    with pytest.raises(InvalidKey):
        curve.agree(curve.generate().private, public)


@pytest.mark.parametrize("point", [0, 1], ids=["order 1", "order 4"])
def test_a_key_of_small_order_is_refused(point: int) -> None:
    with pytest.raises(InvalidKey):
        curve.agree(curve.generate().private, b"\x05" + point.to_bytes(32, "little"))


def test_a_signature_fits_its_key_and_content_only() -> None:
    pair, other = curve.generate(), curve.generate()
    signature = curve.sign(pair.private, b"content")

    curve.verify(pair.public, b"content", signature)

    with pytest.raises(InvalidSignature):
        curve.verify(pair.public, b"other content", signature)
    with pytest.raises(InvalidSignature):
        curve.verify(other.public, b"content", signature)
    with pytest.raises(InvalidSignature):
        curve.verify(pair.public, b"content", signature[:-1])


def test_a_key_that_only_signs_is_verified_like_any_other_and_its_signs_are_zero() -> None:
    for content in (b"", b"content", bytes(1000)):
        for _ in range(8):
            seed, public = curve.generate_for_signing()
            signature = curve.sign_with_seed(seed, content)

            curve.verify(public, content, signature)

            assert signature[-1] < 0x20
            with pytest.raises(InvalidSignature):
                curve.verify(public, content + b"x", signature)


def test_a_signature_with_any_bit_flipped_is_refused() -> None:
    pair = curve.generate()
    signature = curve.sign(pair.private, b"content")

    for bit in range(8 * len(signature)):
        forged = bytearray(signature)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidSignature):
            curve.verify(pair.public, b"content", bytes(forged))


def test_a_private_key_is_not_shown() -> None:
    pair = curve.generate()

    assert pair.private.hex() not in repr(pair)
    assert repr(pair.private) not in repr(pair)


@given(public=st.binary(min_size=32, max_size=32), signature=st.binary(min_size=64, max_size=64))
def test_any_key_and_signature_are_compared_or_refused(public: bytes, signature: bytes) -> None:
    with pytest.raises((InvalidKey, InvalidSignature)):
        curve.verify(b"\x05" + public, b"content", signature)
