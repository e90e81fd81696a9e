"""Makes the store ready before the first instance starts."""

import sys

from mesh.migrations import MigrationRefused, apply, migrations_of, prepare_for_pooler
from mesh.postgres import STORE_ERRORS
from svc_push.settings import StoreSettings


async def run(settings: StoreSettings) -> int:
    """The command `prepare`: its exit code, with a word on what went wrong."""
    dsn = settings.own_dsn
    try:
        await apply("push", dsn, migrations_of("svc_push"))
        if settings.direct_database:
            await prepare_for_pooler(dsn)
    except (*STORE_ERRORS, MigrationRefused) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
