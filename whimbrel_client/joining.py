"""How a profile comes to an account: by registering a new one, or by being linked to another's."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from whimbrel_client.crypto import curve
from whimbrel_client.device_calls import invited, link
from whimbrel_client.device_keys import published
from whimbrel_client.device_names import seal_name
from whimbrel_client.errors import LinkFailed
from whimbrel_client.identity import IdentityCalls
from whimbrel_client.linking import Invitation
from whimbrel_client.profile import Account, Profile
from whimbrel_client.registering import Applicant, register
from whimbrel_client.store import Store
from whimbrel_client.upkeep import upload_first_pools


async def registered(folder: Profile, calls: IdentityCalls, applicant: Applicant) -> Account:
    """Make an account with this folder's keys, or finish what an earlier call began."""
    async with opened(Store(folder.store_path, folder.protection)) as store:
        keys = published(await store.keys.own_keys())
        account, token = await register(calls, applicant, folder.key_or_new(), keys)
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
        device_id, token = await link(
            calls, secret, folder.key_or_new(), published(own), sealed_name=sealed_name
        )
        account = Account(secret.handle, secret.user_id, device_id, calls.gateways)
        folder.keep(account)
        await upload_first_pools(store.keys, calls, token)
    return account


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    """The store, open while the block lasts."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()
