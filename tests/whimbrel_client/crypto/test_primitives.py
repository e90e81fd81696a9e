"""Key derivation, the KEM, the cipher's frame and the padding of plaintexts."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st

from whimbrel_client.crypto import InvalidKey, MalformedMessage, cbc, kyber, pad, unpad
from whimbrel_client.crypto.derivation import derive


def test_derivation_gives_the_values_of_rfc_5869() -> None:
    keys = derive(bytes([0x0B] * 22), 42, info=bytes(range(0xF0, 0xFA)), salt=bytes(range(0x0D)))

    assert keys.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_no_salt_is_32_zero_bytes() -> None:
    assert derive(b"secret", 32, info=b"") == derive(b"secret", 32, info=b"", salt=bytes(32))


def test_the_kem_brings_a_secret_across() -> None:
    pair = kyber.generate()

    secret, ciphertext = kyber.encapsulate(pair.public)

    assert kyber.decapsulate(pair.seed, ciphertext) == secret


def test_the_kem_is_round_3_made_of_ml_kem() -> None:
    pair = kyber.generate()
    secret, ciphertext = kyber.encapsulate(pair.public)

    fips = MLKEM1024PrivateKey.from_seed_bytes(pair.seed).decapsulate(ciphertext[1:])

    expected = hashlib.shake_256(fips + hashlib.sha3_256(ciphertext[1:]).digest()).digest(32)
    assert secret == expected


@pytest.mark.parametrize("cut", [0, 1, 1568])
def test_what_is_no_kem_key_or_ciphertext_is_refused(cut: int) -> None:
    pair = kyber.generate()
    _, ciphertext = kyber.encapsulate(pair.public)

    with pytest.raises(InvalidKey):
        kyber.encapsulate(pair.public[:cut])
    with pytest.raises(InvalidKey):
        kyber.decapsulate(pair.seed, ciphertext[:cut])


def test_a_kem_key_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidKey):
        kyber.encapsulate(b"\x08" + b"\xff" * 1568)


@given(st.binary(max_size=500))
def test_padding_fills_the_ciphertext_to_steps_of_80(plaintext: bytes) -> None:
    padded = pad(plaintext)

    assert unpad(padded) == plaintext
    assert len(cbc.encrypt(bytes(32), bytes(16), padded)) % 80 == 0


@pytest.mark.parametrize("padded", [b"", b"\x00", b"no end", b"\x80\x00\x01"])
def test_what_is_not_padded_is_refused(padded: bytes) -> None:
    with pytest.raises(MalformedMessage):
        unpad(padded)


@pytest.mark.parametrize("ciphertext", [b"", bytes(15), bytes(17)])
def test_a_cut_ciphertext_is_refused(ciphertext: bytes) -> None:
    with pytest.raises(MalformedMessage):
        cbc.decrypt(bytes(32), bytes(16), ciphertext)


@given(st.binary(max_size=100))
def test_the_cipher_pads_as_pkcs7_does(plaintext: bytes) -> None:
    key, iv = bytes(32), bytes(16)
    padder = PKCS7(128).padder()
    padded = padder.update(plaintext) + padder.finalize()
    encryptor = Cipher(AES256(key), CBC(iv)).encryptor()

    ciphertext = cbc.encrypt(key, iv, plaintext)

    assert ciphertext == encryptor.update(padded) + encryptor.finalize()
    assert len(ciphertext) == cbc.padded_size(len(plaintext))
    assert cbc.decrypt(key, iv, ciphertext) == plaintext


@pytest.mark.parametrize(
    "padded",
    [bytes(16), bytes(15) + b"\x11", bytes(14) + b"\x01\x02", b"\x20" * 16, b"\xff" * 32],
    ids=["zero", "above the block", "not repeated", "longer than all", "far too long"],
)
def test_a_wrong_padding_is_refused(padded: bytes) -> None:
    encryptor = Cipher(AES256(bytes(32)), CBC(bytes(16))).encryptor()

    with pytest.raises(MalformedMessage):
        cbc.decrypt(bytes(32), bytes(16), encryptor.update(padded) + encryptor.finalize())
