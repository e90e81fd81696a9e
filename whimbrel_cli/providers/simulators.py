"""All simulators behind one port, and how a mesh is told of them."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from mesh.clock import Clock, SystemClock
from whimbrel_cli.providers.apns import SimulatedApns
from whimbrel_cli.providers.arrivals import Arrivals
from whimbrel_cli.providers.credentials import Credentials
from whimbrel_cli.providers.fcm import TOKEN_PATH, SimulatedFcm
from whimbrel_cli.providers.http import Fault, Http2Server, Reply, Request
from whimbrel_cli.providers.webpush import SimulatedWebPush

HEALTH_PATH = "/health"


class Simulators:
    """The three providers; each answers what its own documentation says."""

    def __init__(self, credentials: Credentials, arrivals: Arrivals, clock: Clock) -> None:
        ec_public = credentials.ec_public
        self.arrivals = arrivals
        self.apns = SimulatedApns(ec_public(credentials.apns_key), arrivals, clock)
        self.fcm = SimulatedFcm(credentials.rsa_public(), arrivals, clock)
        self.web_push = SimulatedWebPush(ec_public(credentials.vapid_key), arrivals, clock)

    def at(self, url: str) -> None:
        """This is where clients find them."""
        self.fcm.token_uri = url + TOKEN_PATH
        self.web_push.origin = url

    async def answer(self, request: Request) -> Reply | Fault:
        """What the provider of the path answers, or what a test has it answer next."""
        for provider in (self.apns, self.fcm, self.web_push):
            if provider.takes(request.path):
                forced = provider.rules.next and request.path != TOKEN_PATH
                if forced:
                    reply = provider.rules.next.pop(0)
                    assert isinstance(reply, Reply | Fault)  # noqa: S101  a test's mistake
                    return reply
                return await provider.answer(request)
        return Reply(200 if request.path == HEALTH_PATH else 404)


@contextlib.asynccontextmanager
async def running_simulators(
    directory: Path, *, port: int = 0, clock: Clock | None = None, log: Path | None = None
) -> AsyncIterator[tuple[Simulators, Mapping[str, str]]]:
    """Serve, with credentials in the directory; gives them and the settings of a push service."""
    credentials = Credentials(directory)
    credentials.make()
    simulators = Simulators(credentials, Arrivals(log), clock or SystemClock())
    async with Http2Server(simulators.answer, credentials.tls(), port=port) as server:
        url = f"https://127.0.0.1:{server.port}"
        simulators.at(url)
        credentials.write_account(url + TOKEN_PATH)
        yield simulators, credentials.settings(url)
