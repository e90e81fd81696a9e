"""Requests to providers over TLS, HTTP/2 where they speak it; logs and raises no URL."""

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpcore

from svc_push.model import Later

_WITHIN = timedelta(seconds=10)
_MOST_CONNECTIONS = 100
_IDLE_SECONDS = 300.0
_MOST_ANSWER_BYTES = 64 * 1024


class NotReached(Exception):
    """There was no answer; whether the request arrived is unknown. Its text holds no URL."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a provider answered."""

    status: int
    headers: Mapping[bytes, bytes] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body; empty if it is no JSON object."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def retry_after(self, now: datetime) -> timedelta | None:
        """When the provider wants to be asked again, in seconds or as a date."""
        value = self.headers.get(b"retry-after", b"").decode("ascii", "replace").strip()
        if value.isdecimal():
            return timedelta(seconds=min(int(value), 10**6))
        try:
            at = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        return max((at if at.tzinfo else at.replace(tzinfo=UTC)) - now, timedelta())

    def later(self, reason: str, now: datetime) -> Later:
        """The provider is in trouble, or was asked too much."""
        return Later(reason, self.retry_after(now))


class HttpClient:
    """Connections to providers, kept and shared."""

    def __init__(
        self, *, ca: str | None = None, only_public: bool = False, within: timedelta = _WITHIN
    ) -> None:
        """Wire it.

        `ca`: a file of further authorities; `only_public`: refuse hosts in private networks;
        `within`: what a request gets in all.
        """
        self._within = within.total_seconds()
        context = ssl.create_default_context()
        if ca:
            context.load_verify_locations(ca)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            http2=True,
            max_connections=_MOST_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=_PublicOnly() if only_public else None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._pool.aclose()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Post once; redirects are not followed. Raises NotReached."""
        try:
            async with asyncio.timeout(self._within):
                return await self._post(url, headers, body)
        except TimeoutError:
            raise NotReached("no answer in time") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise NotReached(type(error).__name__) from None
        except (OSError, ValueError, httpcore.UnsupportedProtocol) as error:
            raise NotReached(type(error).__name__) from None

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        split = urlsplit(url)
        named = [("host", split.netloc), ("content-length", str(len(body))), *headers.items()]
        async with self._pool.stream("POST", url, headers=named, content=body) as response:
            parts, size = [], 0
            async for part in response.aiter_stream():
                parts.append(part)
                size += len(part)
                if size > _MOST_ANSWER_BYTES:
                    raise NotReached("an answer that is too long")
            found = {name.lower(): value for name, value in response.headers}
            return Response(response.status, found, b"".join(parts))


class PrivateAddress(OSError):
    """The host is in a private network, where a client's URL must not lead."""


class _PublicOnly(httpcore.AsyncNetworkBackend):
    """Connects to nothing but public addresses, whatever the names say when they are asked."""

    def __init__(self) -> None:
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        addresses = [str(info[4][0]) for info in found]
        if not addresses or not all(map(is_public, addresses)):
            raise PrivateAddress("not a public address")
        return await self._backend.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )


def is_public(address: str) -> bool:
    """Whether an IP address is one that everybody can reach."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast
