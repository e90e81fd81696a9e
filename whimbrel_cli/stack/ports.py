"""Loopback ports: finding a free one, and naming who holds a taken one."""

import random
import socket

import psutil

from whimbrel_cli.stack.errors import PortTaken, StackError

LOOPBACK = "127.0.0.1"

# Below the range the kernel hands to outgoing connections, so that none of those takes a port
# between our choosing it and the server's binding it, or while a killed server is down.
_RANGE = range(20_000, 32_000)
_TRIES = 200


def free_port() -> int:
    """Return a port that nobody listens on now."""
    # From the system's chance: tests seed Python's, in several processes alike.
    for port in random.SystemRandom().sample(_RANGE, _TRIES):
        if is_free(port):
            return port
    raise StackError(f"no free port in {_TRIES} tries between {_RANGE.start} and {_RANGE.stop}")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port."""
    with socket.socket() as probe:
        # As servers do: connections of the last owner that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def require_free(port: int, wanted_by: str) -> None:
    """Refuse a port that is taken, with the name of its holder where the system tells it."""
    if not is_free(port):
        raise PortTaken(port, wanted_by, _holder(port))


def _holder(port: int) -> str | None:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    for one in connections:
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
            return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    return None
