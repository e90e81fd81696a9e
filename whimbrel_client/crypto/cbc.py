"""AES-256-CBC with PKCS#7 padding; the caller has verified a MAC before anything is decrypted."""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from whimbrel_client.crypto.errors import MalformedMessage

BLOCK = 16


def encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """Encrypt; a key and an IV are used together once."""
    encryptor = Cipher(AES256(key), CBC(iv)).encryptor()
    return encryptor.update(plaintext + padding_after(len(plaintext))) + encryptor.finalize()


def decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Decrypt; raises MalformedMessage."""
    if not ciphertext or len(ciphertext) % BLOCK:
        raise MalformedMessage("the ciphertext is cut")
    decryptor = Cipher(AES256(key), CBC(iv)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    size = len(padded) - padded[-1]
    # That the padding fits is seen in variable time: the MAC has proved who wrote it.
    if size < 0 or padded[size:] != padding_after(size):
        raise MalformedMessage("the padding is wrong")
    return padded[:size]


def padding_after(length: int) -> bytes:
    """Return the PKCS#7 padding of a plaintext of this length."""
    count = BLOCK - length % BLOCK
    return bytes((count,)) * count


def padded_size(length: int) -> int:
    """Return the size of the ciphertext of a plaintext of this length."""
    return length + BLOCK - length % BLOCK
