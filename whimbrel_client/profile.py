"""The folder of one account on this device: its key, who it is, its store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel_client.errors import ProfileMissing
from whimbrel_client.files import write_secret
from whimbrel_client.store_key import BY_ITSELF, Protection


@dataclass(frozen=True, slots=True)
class Account:
    """Who this device is."""

    handle: str
    user_id: bytes
    device_id: int
    # Where it was registered: the addresses to try when the application names none.
    gateways: tuple[str, ...]


class Profile:
    """Reads and writes the folder; everything in it is for the owner's eyes only."""

    def __init__(self, folder: Path | str, protection: Protection = BY_ITSELF) -> None:
        self.folder = Path(folder)
        self.protection = protection

    @property
    def store_path(self) -> Path:
        """Where the local store is."""
        return self.folder / "store.db"

    def key(self) -> Ed25519PrivateKey:
        """The device's key. Raises ProfileMissing if there is none."""
        path = self.folder / "device.key"
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise ProfileMissing(f"the device's key cannot be read: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ProfileMissing(f"{path} holds no Ed25519 key")
        return key

    def key_or_new(self) -> Ed25519PrivateKey:
        """The device's key, made when there is none; on the disk before it is returned."""
        path = self.folder / "device.key"
        if not path.exists():
            write_secret(path, _pem_of(Ed25519PrivateKey.generate()))
        return self.key()

    @property
    def has_account(self) -> bool:
        """Whether it has come to an account."""
        return self._account_path.exists()

    def account(self) -> Account:
        """Who this device is. Raises ProfileMissing before it has registered."""
        try:
            fields = json.loads(self._account_path.read_bytes())
        except FileNotFoundError:
            raise ProfileMissing(f"{self.folder} holds no account: register first") from None
        return Account(
            handle=fields["handle"],
            user_id=bytes.fromhex(fields["user_id"]),
            device_id=fields["device_id"],
            gateways=tuple(fields["gateways"]),
        )

    def keep(self, account: Account) -> None:
        """Write down who this device is."""
        fields = {
            "handle": account.handle,
            "user_id": account.user_id.hex(),
            "device_id": account.device_id,
            "gateways": list(account.gateways),
        }
        write_secret(self._account_path, json.dumps(fields, indent=2).encode())

    @property
    def _account_path(self) -> Path:
        return self.folder / "account.json"


def gateways_of(addresses: Sequence[str], account: Account) -> tuple[str, ...]:
    """The addresses to try: those given, else those of the account."""
    chosen = tuple(addresses) or account.gateways
    if not chosen:
        raise ProfileMissing("no gateway address is known")
    return chosen


def _pem_of(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
