"""AES-256-CBC with PKCS#7 padding; the caller has verified a MAC before anything is decrypted."""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from whimbrel_client.crypto.errors import MalformedMessage

BLOCK = 16
_PKCS7 = PKCS7(8 * BLOCK)


def encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """Encrypt; a key and an IV are used together once."""
    padder = _PKCS7.padder()
    encryptor = Cipher(AES256(key), CBC(iv)).encryptor()
    padded = padder.update(plaintext) + padder.finalize()
    return encryptor.update(padded) + encryptor.finalize()


def decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Decrypt; raises MalformedMessage."""
    if not ciphertext or len(ciphertext) % BLOCK:
        raise MalformedMessage("the ciphertext is cut")
    decryptor = Cipher(AES256(key), CBC(iv)).decryptor()
    unpadder = _PKCS7.unpadder()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError as error:
        raise MalformedMessage("the padding is wrong") from error


def padding_after(length: int) -> bytes:
    """Return the PKCS#7 padding of a plaintext of this length, for whoever streams it."""
    count = BLOCK - length % BLOCK
    return bytes((count,)) * count


def padded_size(length: int) -> int:
    """Return the size of the ciphertext of a plaintext of this length."""
    return length + BLOCK - length % BLOCK
