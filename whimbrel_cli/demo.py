"""`whimbrel demo`: two people talk through a mesh that is being killed; nothing is lost."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table

from mesh.redis import open_redis
from whimbrel_cli.demo_channel import show_channel
from whimbrel_cli.demo_file import show_file
from whimbrel_cli.demo_group import show_group
from whimbrel_cli.demo_people import Cast, Talker
from whimbrel_cli.demo_presence import show_presence
from whimbrel_cli.demo_push import show_push
from whimbrel_cli.demo_tally import Tally, tally
from whimbrel_cli.person import FAILED, run
from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.errors import StackError
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.settings import StackSettings
from whimbrel_cli.wording import groups_of
from whimbrel_client.bell import Bell

# How long everything may take to arrive and be read once all is said.
_SETTLE_SECONDS = 60.0

_FAULTS = ("lost", "seen twice", "out of order", "wrong")
_ROWS = ("sent", "accepted", "delivered", "read", *_FAULTS)


def demo(
    messages: Annotated[int, typer.Option(min=8, help="Messages, both ways together.")] = 2000,
) -> None:
    """Bring a mesh up, let two people talk, kill parts of it in between, and count.

    The exit code is 0 only if every message was accepted, delivered and read, each once, in order,
    on every device, and only if both people see the same safety number.
    """
    console = Console()
    with _folder(console) as folder:
        try:
            shown = run(lambda: _demo(folder, messages, console))
        except StackError as error:
            console.print(f"[red]{error}[/]")
            raise typer.Exit(FAILED) from None
        if not _print(shown, console):
            raise typer.Exit(FAILED)


async def _demo(folder: Path, messages: int, console: Console) -> "Shown":
    began = time.monotonic()
    # Never someone else's servers: one of ours is flushed, and others are killed.
    stack = StackSettings(postgres_dsn=None, redis_url=None, etcd_endpoint=None, s3_url=None)
    console.print("Bringing up a mesh: 2 gateways, 2 message instances, 2 shards, files …")
    parts = Mesh(
        folder / "mesh",
        gateways=2,
        message=2,
        shards=2,
        presence=1,
        media=1,
        push=1,
        settings=stack,
    )
    async with parts as mesh:
        console.print(f"It is up after {time.monotonic() - began:.1f} s.")
        progress = Bell()
        cast = Cast(folder, mesh, console, progress=progress)
        await cast.register("alice", "+4915100000001")
        await cast.register("bob", "+4915100000002")
        async with cast.online("alice") as alice, cast.online("bob") as bob:
            before = messages // 8
            await asyncio.gather(alice.talk("bob", before), bob.talk("alice", before))
            await cast.link(alice, "laptop")
            async with cast.online("laptop", read_receipts=False) as laptop:
                stage = Stage(mesh, alice, bob, laptop, progress, console)
                shown = await stage.play(messages)
                is_intact = await show_file(alice.client, bob.client, folder, console)
                is_followed = await show_channel(alice.client, bob.client, console)
                is_private = await show_group(alice, bob, cast, console)
                is_woken = await show_push(alice.client, cast, mesh, console)
                is_seen = await show_presence(alice.client, cast, console)
                return replace(
                    shown,
                    file_is_intact=is_intact,
                    is_woken=is_woken,
                    is_seen=is_seen,
                    is_followed=is_followed,
                    is_private=is_private,
                )


@dataclass(frozen=True, slots=True)
class Shown:
    """What became of it."""

    tallies: dict[str, Tally]
    # What alice's second device saw of both.
    laptop: Tally
    # The digits of the safety number, as each of the two sees it.
    safety_numbers: tuple[str, str]
    file_is_intact: bool = True
    is_woken: bool = True
    # Who came and went was seen by who had the chat open.
    is_seen: bool = True
    # Who was removed from a group read nothing that was written after.
    is_private: bool = True
    is_followed: bool = True

    @property
    def is_right(self) -> bool:
        """The mesh kept its promises."""
        alice, bob = self.safety_numbers
        is_talk_right = all(one.is_right for one in self.tallies.values())
        is_secure = alice == bob
        return (
            is_talk_right
            and not self.laptop.faults
            and is_secure
            and self.file_is_intact
            and self.is_woken
            and self.is_seen
            and self.is_private
            and self.is_followed
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """The mesh, the two people, and what happens to them."""

    mesh: Mesh
    alice: Talker
    bob: Talker
    laptop: Talker
    progress: Bell
    console: Console

    async def play(self, messages: int) -> Shown:
        """Let them talk while the mesh is being killed, and count."""
        began = time.monotonic()
        half = messages // 2
        self.console.print(
            f"alice and bob write each other {messages:,} messages, encrypted for each device."
        )
        async with asyncio.TaskGroup() as tasks:
            by_alice, by_bob = messages - half - self.alice.accepted, half - self.bob.accepted
            tasks.create_task(self.alice.talk("bob", by_alice), name="alice-talks")
            tasks.create_task(self.bob.talk("alice", by_bob), name="bob-talks")
            tasks.create_task(self._break_things(messages), name="break-things")
        self.console.print(f"All is said after {time.monotonic() - began:.1f} s.")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await asyncio.gather(
                    self.alice.all_read(), self.bob.all_read(), self.laptop.has_heard(messages)
                )
        return await self._counted()

    async def _counted(self) -> Shown:
        alice, bob, laptop = self.alice, self.bob, self.laptop
        by_alice, by_bob = await alice.said(), await bob.said()
        own = await alice.client.safety_number(bob.client.user_id)
        theirs = await bob.client.safety_number(alice.client.user_id)
        return Shown(
            tallies={
                "alice → bob": tally(by_alice, bob.heard_from(alice)),
                "bob → alice": tally(by_bob, alice.heard_from(bob)),
            },
            laptop=tally(by_alice, laptop.heard_from(alice))
            + tally(by_bob, laptop.heard_from(bob)),
            safety_numbers=(own.digits(), theirs.digits()),
        )

    async def _break_things(self, messages: int) -> None:
        async with asyncio.TaskGroup() as restarts:
            await self._accepted(messages // 4)
            await self._kill("message-1", restarts)
            await self._accepted(messages // 2)
            async with open_redis(self.mesh.stack.redis_url) as redis:
                await redis.flushall()
            self._tell("Redis flushed")
            await self._accepted(messages * 3 // 4)
            await self._kill(self._gateway_of(self.alice), restarts)

    async def _kill(self, name: str, restarts: asyncio.TaskGroup) -> None:
        self.mesh.kill(name)
        await self.mesh.ended(name)
        self._tell(f"{name} killed with SIGKILL")
        restarts.create_task(self._restart(name), name=f"restart-{name}")

    async def _restart(self, name: str) -> None:
        await self.mesh.start(name)
        self._tell(f"{name} started again")

    def _gateway_of(self, person: Talker) -> str:
        addresses = self.mesh.gateway_addresses
        at = person.client.gateway
        return f"gateway-{addresses.index(at) + 1 if at in addresses else 1}"

    async def _accepted(self, count: int) -> None:
        """Return when so many messages are accepted."""
        while self._count() < count:
            await self.progress.next_ring().wait()

    def _count(self) -> int:
        return self.alice.accepted + self.bob.accepted

    def _tell(self, what: str) -> None:
        self.console.print(f"  after {self._count():,} accepted: {what}")


def _print(shown: Shown, console: Console) -> bool:
    _print_table(shown.tallies, console)
    laptop = shown.laptop
    faults = ", ".join(f"{getattr(laptop, _field(name)):,} {name}" for name in _FAULTS)
    console.print(f"alice's laptop, of the same {laptop.sent:,}: {faults}.")
    _print_safety_numbers(*shown.safety_numbers, console)
    if shown.is_right:
        console.print("[green]Nothing was lost, doubled or out of order.[/]")
    else:
        console.print("[red]The mesh broke its promise.[/]")
    return shown.is_right


def _print_table(tallies: dict[str, Tally], console: Console) -> None:
    columns = {**tallies, "together": sum(tallies.values(), Tally())}
    table = Table("", *(Column(name, justify="right") for name in columns), box=SIMPLE_HEAD)
    for name in _ROWS:
        counts = [getattr(one, _field(name)) for one in columns.values()]
        is_fault = name in _FAULTS and any(counts)
        table.add_row(name, *(f"{count:,}" for count in counts), style="red" if is_fault else "")
    console.print(table)


def _print_safety_numbers(alice: str, bob: str, console: Console) -> None:
    if alice == bob:
        console.print("Both see the same safety number, so nobody sits between them:")
        console.print(Padding(groups_of(alice), (0, 2)), highlight=False)
    else:
        console.print("[red]They see different safety numbers: somebody sits between them.[/]")


def _field(name: str) -> str:
    return name.replace(" ", "_")


@contextlib.contextmanager
def _folder(console: Console) -> Iterator[Path]:
    """A folder for this once; what went wrong stays there to be looked at."""
    folder = Path(tempfile.mkdtemp(prefix="whimbrel-demo-"))
    try:
        yield folder
    except typer.Exit as end:
        if end.exit_code == FAILED:
            console.print(f"What there is to look at is in {folder}.")
            raise
        _remove(folder)
        raise
    _remove(folder)


def _remove(folder: Path) -> None:
    for postgres in (folder / "mesh").glob("postgres*"):
        cluster.remove(postgres)
    shutil.rmtree(folder, ignore_errors=True)
