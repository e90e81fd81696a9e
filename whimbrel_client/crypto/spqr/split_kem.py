"""ML-KEM-768 (FIPS 203) with its encapsulation cut in two, as the ML-KEM Braid needs it.

The first part of a ciphertext depends only on the seed and the hash of the key, the second on the
rest of the key. Native libraries make both at once, so the encapsulating side, and it alone, is
computed by kyber-py, whose internals are used here; it is not constant-time. Key generation and
decapsulation, which hold the long-lived secret, are native.
"""

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from kyber_py.ml_kem import ML_KEM_768 as KEM  # type: ignore[import-untyped]

from whimbrel_client.crypto import randomness
from whimbrel_client.crypto.errors import InvalidKey

HEADER_SIZE = 64
VECTOR_SIZE = 1152
CT1_SIZE = 960
CT2_SIZE = 128
_SEED_SIZE = 64
_MESSAGE_SIZE = 32


@dataclass(frozen=True, slots=True)
class SplitKey:
    """A key pair whose public part goes out as a header and a vector."""

    seed: bytes = field(repr=False)
    header: bytes
    vector: bytes


@dataclass(frozen=True, slots=True, repr=False)
class FirstPart:
    """The first half of an encapsulation."""

    secret: bytes
    ct1: bytes
    shared: bytes


def generate() -> SplitKey:
    """Make a new key."""
    return from_seed(randomness.draw(_SEED_SIZE))


def from_seed(seed: bytes) -> SplitKey:
    """Make the key of a stored seed again."""
    public = MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    vector, matrix_seed = public[:VECTOR_SIZE], public[VECTOR_SIZE:]
    return SplitKey(seed, matrix_seed + hashlib.sha3_256(public).digest(), vector)


def fits(header: bytes, vector: bytes) -> bool:
    """Whether the vector is the one that the header announced."""
    return hashlib.sha3_256(vector + header[:32]).digest() == header[32:]


def encapsulate_1(header: bytes) -> FirstPart:
    """Make ct1 and the shared secret from the header alone (FIPS 203, algorithms 14 and 17)."""
    message = randomness.draw(_MESSAGE_SIZE)
    digest = hashlib.sha3_512(message + header[32:]).digest()
    shared, coins = digest[:32], digest[32:]
    matrix = KEM._generate_matrix_from_seed(header[:32], transpose=True)  # noqa: SLF001
    y, nonce = KEM._generate_error_vector(coins, KEM.eta_1, 0)  # noqa: SLF001
    e1, _ = KEM._generate_error_vector(coins, KEM.eta_2, nonce)  # noqa: SLF001
    u = (matrix @ y.to_ntt()).from_ntt() + e1
    return FirstPart(message + coins, u.compress(KEM.du).encode(KEM.du), shared)


def encapsulate_2(secret: bytes, vector: bytes) -> bytes:
    """Make ct2 from the vector, which the caller has compared with the header."""
    message, coins = secret[:32], secret[32:]
    t_hat = KEM.M.decode_vector(vector, KEM.k, 12, is_ntt=True)
    if t_hat.encode(12) != vector:
        raise InvalidKey("the key vector is not in its canonical form")
    y, nonce = KEM._generate_error_vector(coins, KEM.eta_1, 0)  # noqa: SLF001
    e2, _ = KEM._generate_polynomial(coins, KEM.eta_2, nonce + KEM.k)  # noqa: SLF001
    v = t_hat.dot(y.to_ntt()).from_ntt() + e2 + KEM.R.decode(message, 1).decompress(1)
    ct2: bytes = v.compress(KEM.dv).encode(KEM.dv)
    return ct2


def decapsulate(seed: bytes, ct1: bytes, ct2: bytes) -> bytes:
    """Return the shared secret; a ciphertext that was altered gives a random one."""
    return MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ct1 + ct2)
