"""The folder of one account on this device: who it is, and its store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel_client.errors import ProfileMissing
from whimbrel_client.files import write_secret
from whimbrel_client.grpc_channel import addressed, is_by_tls
from whimbrel_client.store_key import BY_ITSELF, Protection


@dataclass(frozen=True, slots=True)
class Account:
    """Who this device is."""

    handle: str
    user_id: bytes
    device_id: int
    # Where it was registered: the addresses to try when the application names none.
    gateways: tuple[str, ...]
    # Who certifies them, PEM; empty: whom gRPC trusts by itself.
    ca: str = field(default="", repr=False)


class Profile:
    """Reads and writes the folder; everything in it is for the owner's eyes only."""

    def __init__(self, folder: Path | str, protection: Protection = BY_ITSELF) -> None:
        self.folder = Path(folder)
        self.protection = protection

    @property
    def store_path(self) -> Path:
        """Where the local store is."""
        return self.folder / "store.db"

    def key_in_clear(self) -> Ed25519PrivateKey | None:
        """The device's key where older versions kept it. Raises ProfileMissing if it is damaged."""
        try:
            key = serialization.load_pem_private_key(self._key_path.read_bytes(), password=None)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ProfileMissing(f"the device's key cannot be read: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ProfileMissing(f"{self._key_path} holds no Ed25519 key")
        return key

    def drop_key_in_clear(self) -> None:
        """Delete it: it is in the store."""
        self._key_path.unlink(missing_ok=True)

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
            ca=fields.get("ca", ""),
        )

    def keep(self, account: Account) -> None:
        """Write down who this device is."""
        fields = {
            "handle": account.handle,
            "user_id": account.user_id.hex(),
            "device_id": account.device_id,
            "gateways": list(account.gateways),
            "ca": account.ca,
        }
        write_secret(self._account_path, json.dumps(fields, indent=2).encode())

    @property
    def _key_path(self) -> Path:
        return self.folder / "device.key"

    @property
    def _account_path(self) -> Path:
        return self.folder / "account.json"


def gateways_of(given: Sequence[str], account: Account, ca: str) -> tuple[str, ...]:
    """The addresses to try: those given, else those of the account.

    Whoever came by TLS once does not go on in the clear unless an address says so.
    """
    if not given and not account.gateways:
        raise ProfileMissing("no gateway address is known")
    by_tls = bool(ca or account.ca) or is_by_tls(account.gateways)
    return addressed(given, by_tls=by_tls) or account.gateways
