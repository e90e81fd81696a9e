"""Service tokens on internal listeners: the callee demands one, the caller renews its own."""

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime, timedelta

import grpc

from mesh.auth import (
    METADATA_KEY,
    ServiceClaims,
    ServiceTokenVerifier,
    TokenSigner,
    bearer,
)
from mesh.clock import Clock, SystemClock
from mesh.errors import WhimbrelError
from mesh.interceptors import Continuation, Handler, refusal

HEALTH = "/grpc.health.v1.Health/"
_LIFETIME = timedelta(minutes=5)

_caller: ContextVar[ServiceClaims] = ContextVar("caller")


def caller() -> ServiceClaims:
    """Who called, inside a handler behind ServiceTokenInterceptor."""
    return _caller.get()


class ServiceTokenInterceptor(grpc.aio.ServerInterceptor):
    """Lets in only who shows a token made for this service; health is open to probes."""

    def __init__(self, verifier: ServiceTokenVerifier) -> None:
        self._verifier = verifier

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        if not handler_call_details.method.startswith(HEALTH):
            try:
                self._admit(handler_call_details)
            except WhimbrelError as error:
                return refusal(error)
        return await continuation(handler_call_details)

    def _admit(self, call: grpc.HandlerCallDetails) -> None:
        _caller.set(self._verifier.verify(bearer(call.invocation_metadata)))


class ServiceCredentials:
    """The metadata that an instance's calls carry, with a token that is renewed in time."""

    def __init__(
        self,
        signer: TokenSigner,
        *,
        service: str,
        instance_id: str,
        clock: Clock | None = None,
        lifetime: timedelta = _LIFETIME,
    ) -> None:
        self._signer = signer
        self._service = service
        self._instance_id = instance_id
        self._clock = clock or SystemClock()
        self._lifetime = lifetime
        self._tokens: dict[str, tuple[str, datetime]] = {}

    def metadata_for(
        self, audience: str, extra: Mapping[str, str] | None = None
    ) -> tuple[tuple[str, str], ...]:
        """Metadata for a call to the service `audience`."""
        pairs = ((METADATA_KEY, f"Bearer {self._token(audience)}"),)
        return pairs if extra is None else (*pairs, *extra.items())

    def _token(self, audience: str) -> str:
        token, expires_at = self._tokens.get(audience, ("", None))
        # Half of its life is left for calls on their way and for clocks that differ.
        if expires_at is None or expires_at - self._clock.now() < self._lifetime / 2:
            token, expires_at = self._signer.service_token(
                service=self._service,
                instance_id=self._instance_id,
                audience=audience,
                lifetime=self._lifetime,
            )
            self._tokens[audience] = (token, expires_at)
        return token
