"""How the object store is reached: by connections that trust what the file of authorities holds."""

from functools import partial
from pathlib import Path

import httpx

from mesh.renewal import Renewing
from mesh.store_tls import trusting
from mesh.telemetry import OFF, Telemetry


def transport(ca: Path | None, *, telemetry: Telemetry = OFF) -> httpx.AsyncBaseTransport:
    """For a client of httpx; without a file, with the usual authorities."""
    if ca is None:
        return httpx.AsyncHTTPTransport(trust_env=False)
    return _Renewed(ca, telemetry)


class _Renewed(httpx.AsyncBaseTransport):
    """Makes new connections with the file as it is, when that was changed, if it is good."""

    def __init__(self, ca: Path, telemetry: Telemetry) -> None:
        self._newest = Renewing([ca], partial(_trusting, ca), telemetry=telemetry)
        self._used = self._newest.now()
        self._before: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        newest = self._newest.now()
        if newest is not self._used:
            # What is under way on the one before may end; on the one before that it has.
            ended, self._before, self._used = self._before, self._used, newest
            if ended is not None:
                await ended.aclose()
        return await newest.handle_async_request(request)

    async def aclose(self) -> None:
        for one in (self._used, self._before):
            if one is not None:
                await one.aclose()


def _trusting(ca: Path) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(verify=trusting(ca), trust_env=False)
