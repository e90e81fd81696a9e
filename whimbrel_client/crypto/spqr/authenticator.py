"""The authenticator of the ML-KEM Braid: ties each epoch's key exchange to all secrets before."""

from dataclasses import dataclass

from whimbrel_client.crypto.derivation import derive, mac, same
from whimbrel_client.crypto.errors import ForgedMessage

MAC_SIZE = 32
_LABEL = b"Signal_PQCKA_V1_MLKEM768:"


@dataclass(frozen=True, slots=True, repr=False)
class Authenticator:
    """Knows what only the two ends of the session know."""

    root: bytes
    mac_key: bytes

    def updated(self, epoch: int, secret: bytes) -> "Authenticator":
        info = _LABEL + b"Authenticator Update" + _bytes_of(epoch)
        keys = derive(self.root + secret, 64, info=info)
        return Authenticator(keys[:32], keys[32:])

    def mac_of_header(self, epoch: int, header: bytes) -> bytes:
        return mac(self.mac_key, _LABEL + b"ekheader" + _bytes_of(epoch) + header)

    def mac_of_ciphertext(self, epoch: int, ciphertext: bytes) -> bytes:
        return mac(self.mac_key, _LABEL + b"ciphertext" + _bytes_of(epoch) + ciphertext)

    def prove_header(self, epoch: int, header: bytes, tag: bytes) -> None:
        if not same(self.mac_of_header(epoch, header), tag):
            raise ForgedMessage("the MAC of a key header does not fit")

    def prove_ciphertext(self, epoch: int, ciphertext: bytes, tag: bytes) -> None:
        if not same(self.mac_of_ciphertext(epoch, ciphertext), tag):
            raise ForgedMessage("the MAC of a KEM ciphertext does not fit")


def start(epoch: int, secret: bytes) -> Authenticator:
    """Begin with the secret of the session."""
    return Authenticator(bytes(32), bytes(32)).updated(epoch, secret)


def epoch_secret(epoch: int, shared: bytes) -> bytes:
    """Turn a KEM's shared secret into the epoch's secret."""
    return derive(shared, 32, info=_LABEL + b"SCKA Key" + _bytes_of(epoch))


def _bytes_of(epoch: int) -> bytes:
    return epoch.to_bytes(8)
