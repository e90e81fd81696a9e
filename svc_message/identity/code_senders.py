"""Ways by which a one-time code reaches a number; none knows an account."""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
import logging
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from mesh.clock import Clock, SystemClock
from mesh.errors import Unavailable

_TIMEOUT = timedelta(seconds=3)
_SIGNATURE = "whimbrel-signature"


class CodeNotSent(Unavailable):
    """The code did not go out; another may be asked for at once."""


class CodeSender(Protocol):
    """Brings a code to a number."""

    async def send(self, phone_number: str, code: str, expires_at: datetime) -> None:
        """Return when it is on its way. Raises CodeNotSent."""


class FileCodeSender:
    """Appends codes to a file that its owner alone may read: for development, and for tests."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, phone_number: str, code: str, expires_at: datetime) -> None:
        try:
            await asyncio.to_thread(self._append, _message(phone_number, code, expires_at) + b"\n")
        except OSError as error:
            raise CodeNotSent("the code cannot be written") from error

    def _append(self, line: bytes) -> None:
        # One write of few bytes in append mode: instances that share the file do not mix lines.
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)


class WebhookCodeSender:
    """Posts codes to a service that sends text messages.

    The body is JSON with `phone_number`, `code` and `expires_at`. The header `whimbrel-signature`
    is `t=<seconds>,v1=<hex>`: HMAC-SHA-256 by the shared secret over the seconds, a dot, and the
    body.
    """

    def __init__(
        self, client: httpx.AsyncClient, url: str, secret: bytes, *, clock: Clock | None = None
    ) -> None:
        """Raises ValueError unless the URL is https, or leads to this machine."""
        _check(url)
        self._client = client
        self._url = url
        self._secret = secret
        self._clock = clock or SystemClock()

    async def send(self, phone_number: str, code: str, expires_at: datetime) -> None:
        body = _message(phone_number, code, expires_at)
        headers = {"content-type": "application/json", _SIGNATURE: self._signature(body)}
        try:
            answer = await self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            # Its text may hold the URL, which may hold a secret.
            raise CodeNotSent("the code cannot be sent now") from error
        if not answer.is_success:
            raise CodeNotSent("the code cannot be sent now")

    def _signature(self, body: bytes) -> str:
        seconds = int(self._clock.now().timestamp())
        digest = hmac.digest(self._secret, b"%d.%s" % (seconds, body), hashlib.sha256)
        return f"t={seconds},v1={digest.hex()}"


@contextlib.asynccontextmanager
async def open_webhook(url: str, secret: bytes) -> AsyncIterator[WebhookCodeSender]:
    """A sender with connections of its own; it goes where the URL says and nowhere else."""
    # It tells every URL at INFO.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    async with httpx.AsyncClient(
        timeout=_TIMEOUT.total_seconds(), follow_redirects=False, trust_env=False
    ) as client:
        yield WebhookCodeSender(client, url, secret)


def _message(phone_number: str, code: str, expires_at: datetime) -> bytes:
    fields = {
        "phone_number": phone_number,
        "code": code,
        "expires_at": expires_at.isoformat(timespec="seconds"),
    }
    return json.dumps(fields).encode()


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not _is_loopback(parts.hostname or ""):
        raise ValueError("codes go to an https URL, or to one of this machine")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
