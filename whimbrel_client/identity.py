"""Calls at whichever gateway answers, and the access token that opens most of them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp

from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel_client.clock import ServerClock
from whimbrel_client.errors import CallFailed, Unreachable, error_of
from whimbrel_client.grpc_channel import addressed, authorities, explained, open_channel
from whimbrel_client.profile import Account

T = TypeVar("T")
Call = Callable[[grpc.aio.Channel], Awaitable[T]]
Stub = identity_pb2_grpc.IdentityServiceStub

CALL_SECONDS = 10.0
_ROUNDS = 3

# A token is replaced this long before it ends, so that none ends on its way.
_SPARE_SECONDS = 60.0


class IdentityCalls:
    """Calls the mesh at whichever gateway answers first."""

    def __init__(
        self,
        gateways: Sequence[str],
        *,
        clock: ServerClock,
        ca: str = "",
    ) -> None:
        self._gateways = list(gateways)
        self._clock = clock
        self.ca = ca
        random.shuffle(self._gateways)

    @property
    def gateways(self) -> tuple[str, ...]:
        """The addresses that are tried."""
        return tuple(sorted(self._gateways))

    def now_ms(self) -> int:
        """The server's time, for signing."""
        return self._clock.now_ms()

    async def refresh(self, account: Account, key: Ed25519PrivateKey) -> tuple[str, int]:
        """The device's next token and when it ends. Raises DeviceRevoked, Unreachable."""

        async def call(channel: grpc.aio.Channel) -> tuple[str, int]:
            at_ms = self._clock.now_ms()
            device = account.user_id + account.device_id.to_bytes(4, "big")
            signed = b"whimbrel refresh v1\0" + device + b"\0" + _eight_bytes(at_ms)
            request = identity_pb2.RefreshRequest(
                user_id=account.user_id,
                device_id=account.device_id,
                signed_at=timestamp(at_ms),
                signature=key.sign(signed),
            )
            response = await Stub(channel).Refresh(request, timeout=CALL_SECONDS)
            return response.access_token, response.expires_at.ToMilliseconds()

        return await self.anywhere(call)

    async def anywhere(self, call: Call[T]) -> T:
        """Try the gateways in turn; the one that answered is tried first the next time."""
        last: Exception | None = None
        why = "no address is known"
        for round_number in range(_ROUNDS):
            if round_number:
                await asyncio.sleep(random.uniform(0, 0.25 * 2**round_number))  # noqa: S311
            for gateway in list(self._gateways):
                try:
                    return await self._once(gateway, call)
                except CallFailed as error:
                    if not self._is_worth_repeating(error):
                        raise
                    last = error
                    why = explained(gateway, str(error))
                self._gateways.remove(gateway)
                self._gateways.append(gateway)
        raise Unreachable(f"no gateway answers: {why}") from last

    async def _once(self, gateway: str, call: Call[T]) -> T:
        async with open_channel(gateway, self.ca) as channel:
            try:
                return await call(channel)
            except grpc.aio.AioRpcError as failure:
                raise error_of(failure) from failure

    def _is_worth_repeating(self, error: CallFailed) -> bool:
        if error.reason == "SIGNATURE_STALE":
            return self._learn_time(error)
        if error.reason in _FOR_LATER:
            return False
        return error.retry_after is not None or error.reason in _TRANSIENT

    def _learn_time(self, error: CallFailed) -> bool:
        """The local date is wrong: sign with the server's time the next time."""
        server_time = Timestamp()
        try:
            server_time.FromJsonString(error.metadata["server_time"])
        except (KeyError, ValueError):
            return False
        self._clock.learn(server_time.ToMilliseconds())
        return True


# Asking again at once only makes it worse: the caller knows when.
_FOR_LATER = frozenset({"RATE_LIMITED", "PROVISIONING_EMPTY"})
_TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "OVERLOADED", "CANCELLED"})


class Tokens:
    """The device's access token, always one that will last a while."""

    def __init__(
        self,
        account: Account,
        key: Ed25519PrivateKey,
        *,
        calls: IdentityCalls,
        clock: ServerClock,
    ) -> None:
        self._account = account
        self._key = key
        self._calls = calls
        self._clock = clock
        self._token = ""
        # By the monotonic clock.
        self._renew_at = 0.0

    def renew_in(self) -> float:
        """Seconds until the token should be replaced."""
        return max(0.0, self._renew_at - self._clock.monotonic())

    async def current(self) -> str:
        """A token that lasts; a new one is fetched when it must be."""
        if not self._token or not self.renew_in():
            await self.renew()
        return self._token

    async def renew(self) -> None:
        """Fetch a new token, whatever the old one is like."""
        token, expires_at = await self._calls.refresh(self._account, self._key)
        lasts = (expires_at - self._clock.now_ms()) / 1000
        spare = min(_SPARE_SECONDS, lasts / 2)
        self._token = token
        self._renew_at = self._clock.monotonic() + lasts - spare

    def forget(self) -> None:
        """The mesh did not like the token."""
        self._token = ""


def calls_to(gateways: Sequence[str], ca: Path | str | None) -> IdentityCalls:
    """Calls at these addresses: with a file of authorities by TLS, unless an address says not."""
    trusted = authorities(ca)
    where = addressed(gateways, by_tls=bool(trusted))
    return IdentityCalls(where, clock=ServerClock(), ca=trusted)


def authorization(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def timestamp(milliseconds: int) -> Timestamp:
    """A time on the wire."""
    moment = Timestamp()
    moment.FromMilliseconds(milliseconds)
    return moment


def _eight_bytes(number: int) -> bytes:
    return number.to_bytes(8, "big")
