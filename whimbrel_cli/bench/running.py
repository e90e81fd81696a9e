"""Runs one workload: a fresh mesh, accounts in bulk, the load process, samples on its way."""

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from mesh.auth import TokenSigner
from mesh.ids import ulid_text
from mesh.keys import KeySet
from mesh.postgres import open_pool
from mesh.telemetry import TelemetrySettings
from svc_gateway.limits import DEFAULTS
from svc_message.identity.bulk import BulkAccount, bulk_register
from svc_message.shards.directory import Shards
from whimbrel_cli.bench.counting import Counter
from whimbrel_cli.bench.plan import LINE_BYTES, Milestone, Person, Plan
from whimbrel_cli.bench.workloads import MARK_EVERY, Figures, Seen, Workload
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.stack.mesh import Mesh

_TOKEN_LIFETIME = timedelta(days=1)


class BenchFailed(StackError):
    """The load process saw the mesh do what it must not."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How long a workload with traffic runs."""

    seconds: float
    messages: int  # 0: for `seconds`
    warm_up: float
    payload_bytes: int
    gateways: int
    message: int
    shards: int
    env: Mapping[str, str] = field(default_factory=dict)  # settings of every instance


# Nobody writes as much as a bench; leases are taken and spent as ever.
_WIDE = json.dumps({name: {"burst": 2**36, "per_second": 2**30} for name in DEFAULTS})

# A mesh that is observed has every trace kept, unless it is told otherwise.
_SAMPLED = {
    f"WHIMBREL_{service}_TELEMETRY__SAMPLED": str(TelemetrySettings().sampled)
    for service in ("GATEWAY", "MESSAGE", "PRESENCE")
}

OnMilestone = Callable[[Milestone, Mesh], None]


async def run(
    workload: Workload,
    size: Size,
    on_milestone: OnMilestone,
    *,
    observe: bool = False,
    tls: bool = False,
) -> Figures:
    """Bring a mesh up for this workload alone, and measure it.

    If observed, as a real one is; `tls`: between clients, gateways and services.
    """
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as directory:
        data = Path(directory) / "mesh"
        async with Mesh(
            data,
            gateways=size.gateways,
            message=size.message,
            shards=size.shards,
            presence=workload.presence,
            observe=observe,
            insecure=not tls,
            tls=tls,
            env={"WHIMBREL_GATEWAY_LIMITS": _WIDE, **(_SAMPLED if observe else {}), **size.env},
        ) as mesh:
            people = await bulk_people(mesh, workload.people)
            try:
                seen = await _drive(mesh, _plan(workload, size, mesh, people), on_milestone)
            except BenchFailed as failure:
                raise BenchFailed(f"{failure}\n{_kept(mesh)}") from None
    return workload.figures(seen)


def _kept(mesh: Mesh) -> str:
    """Save the logs from the temporary folder, and say where they are."""
    place = Path(tempfile.mkdtemp(prefix="whimbrel-bench-logs-"))
    shutil.copytree(mesh.data / "logs", place, dirs_exist_ok=True)
    return f"the logs of the mesh are in {place}"


def _plan(workload: Workload, size: Size, mesh: Mesh, people: Sequence[Person]) -> Plan:
    messages = workload.messages or size.messages
    return Plan(
        workload=workload.kind,
        gateways=mesh.gateway_addresses,
        people=people,
        payload_bytes=size.payload_bytes,
        outstanding=workload.outstanding,
        warm_up=size.warm_up,
        seconds=size.seconds,
        messages=messages,
        mark_every=MARK_EVERY if messages >= 2 * MARK_EVERY else 0,
        rounds=workload.rounds,
        presence=mesh.presence_addresses,
        ca=str(mesh.client_ca or ""),
        data=str(mesh.data),
        shards=mesh.shards,
    )


async def bulk_people(mesh: Mesh, count: int) -> list[Person]:
    """So many accounts on the mesh, each with a token for a day."""
    async with contextlib.AsyncExitStack() as stack:
        pools = {
            name: await stack.enter_async_context(open_pool(dsn, size=1, application_name="bench"))
            for name, dsn in mesh.shards.items()
        }
        shards = Shards(pools)
        await shards.read_maps()
        accounts = await bulk_register(shards, count)
    keys = KeySet.load(mesh.data / "keys" / "token.json")
    assert keys.private_key is not None  # noqa: S101  the mesh has just made it
    signer = TokenSigner(keys.private_key, keys.key_id)
    return [_person(account, signer) for account in accounts]


def _person(account: BulkAccount, signer: TokenSigner) -> Person:
    token, _ = signer.device_token(
        user=ulid_text(account.user_id),
        device_id=account.device_id,
        credential_version=account.credential_version,
        lifetime=_TOKEN_LIFETIME,
    )
    return Person(account.user_id, token)


async def _drive(mesh: Mesh, plan: Plan, on_milestone: OnMilestone) -> Seen:
    counter = Counter(mesh)
    seen = []
    async with _load_process() as load:
        assert load.stdin is not None  # noqa: S101  it was asked for
        load.stdin.write(f"{plan.to_json()}\n".encode())
        async for milestone in _milestones(load):
            seen.append((milestone, counter.sample()))
            on_milestone(milestone, mesh)
            load.stdin.write(b"\n")
    return seen


async def _milestones(load: asyncio.subprocess.Process) -> AsyncIterator[Milestone]:
    assert load.stdout is not None  # noqa: S101  it was asked for
    while line := await load.stdout.readline():
        milestone = Milestone.from_json(line.decode())
        if milestone.failure:
            raise BenchFailed(f"the load process gave up: {milestone.failure}")
        yield milestone
        if milestone.name == "finished":
            return
    raise BenchFailed("the load process ended before its time")


@contextlib.asynccontextmanager
async def _load_process() -> AsyncIterator[asyncio.subprocess.Process]:
    load = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "whimbrel_cli.bench.load",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    try:
        yield load
    finally:
        with contextlib.suppress(ProcessLookupError):
            load.kill()
        await load.wait()
