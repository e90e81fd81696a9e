"""The parts behind IdentityService, wired to each other."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from mesh.auth import TokenSigner
from mesh.clock import Clock
from mesh.redis import Redis
from svc_message.groups.departing import Departing
from svc_message.groups.store import GroupStore
from svc_message.groups.wire import logged_leaving
from svc_message.identity.accounts import Accounts
from svc_message.identity.budget import LookUpBudget
from svc_message.identity.code_senders import CodeSender, FileCodeSender, open_webhook
from svc_message.identity.codes import Codes
from svc_message.identity.deleting import Deleting
from svc_message.identity.deleting_store import DeletingStore
from svc_message.identity.ending import Sessions
from svc_message.identity.finding import Finding
from svc_message.identity.finding_store import FindingStore
from svc_message.identity.lock_store import LockStore
from svc_message.identity.locks import RegistrationLocks
from svc_message.identity.number_store import CodeStore, NumberStore
from svc_message.identity.numbers import Numbers
from svc_message.identity.personal import Personal
from svc_message.identity.personal_store import PersonalStore
from svc_message.identity.registering import Registering
from svc_message.identity.servicer import Identity
from svc_message.identity.store import AccountStore
from svc_message.identity.sweep import Sweep
from svc_message.settings import Settings
from svc_message.shards.directory import Shards


def build_identity(
    shards: Shards,
    redis: Redis,
    signer: TokenSigner,
    sessions: Sessions,
    sender: CodeSender | None,
    *,
    redis_prefix: str,
    demands_number: bool = False,
    token_lifetime: timedelta = timedelta(minutes=10),
    clock: Clock | None = None,
) -> Identity:
    """Wire the rules; `sender` is None where no codes are sent."""
    store, number_store, code_store = AccountStore(shards), NumberStore(shards), CodeStore(shards)
    numbers = Numbers(number_store, store)
    codes = Codes(code_store, sender, clock=clock)
    locks = RegistrationLocks(LockStore(shards), clock=clock)
    registering = Registering(
        store, numbers, codes, locks, sessions, demands_number=demands_number, clock=clock
    )
    departing = Departing(GroupStore(shards), logged=logged_leaving())
    deleting = Deleting(
        DeletingStore(shards),
        store,
        number_store,
        code_store,
        sessions,
        depart=departing.depart,
    )
    return Identity(
        accounts=Accounts(store, registering, signer, clock=clock, token_lifetime=token_lifetime),
        registering=registering,
        codes=codes,
        locks=locks,
        finding=Finding(FindingStore(shards), LookUpBudget(redis, prefix=redis_prefix)),
        personal=Personal(PersonalStore(shards)),
        deleting=deleting,
        sweep=Sweep(store, numbers, codes, deleting),
    )


@contextlib.asynccontextmanager
async def open_sender(settings: Settings) -> AsyncIterator[CodeSender | None]:
    """The sender of codes that the settings name, if they name one."""
    if settings.codes_webhook:
        secret = settings.codes_webhook_secret.get_secret_value().encode()
        async with open_webhook(settings.codes_webhook.get_secret_value(), secret) as sender:
            yield sender
    elif settings.codes_file is not None:
        yield FileCodeSender(settings.codes_file)
    else:
        yield None
