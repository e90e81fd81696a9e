"""How a profile comes to an account: by registering a new one, or by being linked to another's."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel_client.crypto import curve
from whimbrel_client.device_calls import invited, link
from whimbrel_client.device_keys import published
from whimbrel_client.device_names import seal_name
from whimbrel_client.errors import LinkFailed, ProfileMissing
from whimbrel_client.identity import IdentityCalls
from whimbrel_client.linking import Invitation
from whimbrel_client.profile import Account, Profile
from whimbrel_client.registering import Applicant, register
from whimbrel_client.sessions import DeviceId
from whimbrel_client.store import Store
from whimbrel_client.upkeep import upload_first_pools


async def registered(folder: Profile, calls: IdentityCalls, applicant: Applicant) -> Account:
    """Make an account with this folder's keys, or finish what an earlier call began."""
    async with opened(Store(folder.store_path, folder.protection)) as store:
        keys = published(await store.keys.own_keys())
        key = await device_key(folder, store, otherwise=Ed25519PrivateKey.generate())
        account, token = await register(calls, applicant, key, keys)
        folder.keep(account)
        await upload_first_pools(store.keys, calls, token)
    return account


async def linked(
    folder: Profile, calls: IdentityCalls, *, show: Callable[[str], None], name: str
) -> Account:
    """Show a code, wait until the primary has scanned it, and become a device of its account."""
    if folder.has_account:
        raise LinkFailed(f"{folder.folder} holds an account already")
    invitation = Invitation()
    async with opened(Store(folder.store_path, folder.protection)) as store:
        show(str(invitation.code))
        secret = await invited(calls, invitation)
        identity = curve.pair_of(secret.identity_private_key)
        own = await store.keys.own_keys(identity)
        sealed_name = seal_name(name, identity, own.device.registration_id)
        key = await device_key(folder, store, otherwise=Ed25519PrivateKey.generate())
        device_id, token = await link(calls, secret, key, published(own), sealed_name=sealed_name)
        account = Account(secret.handle, secret.user_id, device_id, calls.gateways, calls.ca)
        if secret.history_token:
            this = DeviceId(secret.user_id, device_id)
            await store.history.expect(this, secret.history_token, now_ms=calls.now_ms())
        folder.keep(account)
        await upload_first_pools(store.keys, calls, token)
    return account


async def device_key(
    folder: Profile, store: Store, *, otherwise: Ed25519PrivateKey | None = None
) -> Ed25519PrivateKey:
    """The key that signs for this device, out of the store; one that lay beside it is moved there.

    `otherwise` becomes it if there is none. Raises ProfileMissing if none is given either.
    """
    key = await store.keys.device_key(folder.key_in_clear() or otherwise)
    if key is None:
        raise ProfileMissing(f"{folder.folder} has lost the key of its device")
    folder.drop_key_in_clear()
    return key


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    """The store, open while the block lasts."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()
