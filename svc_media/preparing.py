"""Makes the stores ready before the first instance starts: schema, bucket, lifecycle."""

import sys
from datetime import timedelta

import httpx

from mesh.clock import SystemClock
from mesh.errors import Unavailable
from mesh.migrations import MigrationRefused, apply, migrations_of, prepare_for_pooler
from mesh.postgres import STORE_ERRORS
from svc_media.objects import ObjectStore
from svc_media.settings import StoreSettings
from svc_media.transport import transport


async def prepare(settings: StoreSettings) -> None:
    """Bring both stores up to date; may run twice. Raises MigrationRefused, Unavailable."""
    dsn = settings.own_dsn
    await apply("media", dsn, migrations_of("svc_media"))
    if settings.direct_database:
        await prepare_for_pooler(dsn)
    async with httpx.AsyncClient(trust_env=False, transport=transport(settings.s3_ca)) as http:
        objects = ObjectStore(settings.bucket, http, SystemClock())
        await objects.make_bucket(keep=settings.longest_kept + timedelta(days=1))


async def run(settings: StoreSettings) -> int:
    """The command `prepare`: its exit code, with a word on what went wrong."""
    try:
        await prepare(settings)
    except (*STORE_ERRORS, MigrationRefused, Unavailable) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
