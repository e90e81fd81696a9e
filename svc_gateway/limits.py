"""The limits that a gateway holds its clients to, and what of a send or a call they count."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Protocol
from urllib.parse import unquote

from mesh.errors import ResourceExhausted
from mesh.limits import Limit, Limiter, Want
from svc_gateway.to_service import Address
from svc_gateway.window import KIB

Networks = tuple[IPv4Network | IPv6Network, ...]

_FRAME_BYTES = 256 * KIB
_FORWARDED = "x-forwarded-for"
_MOST_HOPS = 16

SENDS = Limit(
    name="sends",
    meaning="messages that a device sends",
    burst=5_000,
    per_second=20.0,
    lot=200,
    fails_open=True,
)
BYTES = Limit(
    name="bytes",
    meaning="bytes of the messages that a device sends",
    burst=128 * 1024 * KIB,
    per_second=256.0 * KIB,
    lot=1024 * KIB,
    fails_open=True,
    least_burst=_FRAME_BYTES,
)
RECIPIENT = Limit(
    name="recipient",
    meaning="messages that an account sends to one other account or one group",
    burst=4_000,
    per_second=10.0,
    lot=100,
    fails_open=True,
)
REGISTRATIONS = Limit(
    name="registrations",
    meaning="registrations, codes and linkings asked for from one address",
    burst=300,
    per_second=1.0,
    lot=5,
    fails_open=False,
)
DEFAULTS = {limit.name: limit for limit in (SENDS, BYTES, RECIPIENT, REGISTRATIONS)}
# Renewing a token is none of them: it must work while Redis is away.
_REGISTERING = frozenset(
    {
        "/whimbrel.identity.v1.IdentityService/Register",
        "/whimbrel.identity.v1.IdentityService/RequestCode",
        "/whimbrel.identity.v1.DeviceService/LinkDevice",
    }
)
# Where operators set them otherwise, in etcd under the prefix of the mesh.
OVERRIDES = "limits"


class RateLimited(ResourceExhausted):
    """The caller has done this too often."""

    reason = "RATE_LIMITED"


class Context(Protocol):
    """What is read of a call."""

    def peer(self) -> str: ...
    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None: ...


def wants_of_send(sender: Address, to: bytes, size: int) -> tuple[Want, ...]:
    """What a send of so many bytes costs."""
    user = sender[0].hex()
    device = f"{user}:{sender[1]}"
    return (
        Want(SENDS.name, device, 1),
        Want(BYTES.name, device, size),
        Want(RECIPIENT.name, f"{user}:{to.hex()}", 1),
    )


class Doorkeeper:
    """Counts registrations by the address that they come from."""

    def __init__(self, limiter: Limiter, *, trusted_proxies: Networks = ()) -> None:
        self._limiter = limiter
        self._trusted = trusted_proxies

    async def admit(self, method: str, context: Context) -> None:
        """Let a call in; raises RateLimited."""
        if method not in _REGISTERING:
            return
        address = client_address(context, self._trusted)
        refused = await self._limiter.take([Want(REGISTRATIONS.name, address, 1)])
        if refused is not None:
            raise RateLimited(
                "too often from this address",
                metadata={"limit": refused.limit},
                retry_after=refused.retry_after,
            )


def client_address(context: Context, trusted: Networks) -> str:
    """Where a call comes from, as far as it can be known: an IPv4 address or an IPv6 /64.

    Only what trusted proxies have written counts: from the end of x-forwarded-for, the first
    address that is not a trusted proxy's own. Whatever stands before it may be forged.
    """
    address = _peer(context.peer())
    if address is None:
        return "unknown"
    hops = _forwarded(context)
    while hops and _is_among(address, trusted):
        said = _parsed(hops.pop())
        if said is None:  # no proxy of ours has written that
            break
        address = said
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address)


def _forwarded(context: Context) -> list[str]:
    values = [v for k, v in context.invocation_metadata() or () if k == _FORWARDED]
    text = ",".join(v for v in values if isinstance(v, str))
    return [part.strip() for part in text.split(",")[-_MOST_HOPS:]] if text else []


def _peer(peer: str) -> IPv4Address | IPv6Address | None:
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    return _parsed(unquote(rest).rpartition(":")[0])


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_among(address: IPv4Address | IPv6Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
