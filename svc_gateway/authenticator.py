"""Who calls: the device that a token proves, at the start of a stream or call and later on it."""

from typing import Any

import grpc

from mesh.auth import TokenVerifier, bearer
from mesh.errors import TokenInvalid
from mesh.ids import parse_ulid
from svc_gateway.edge import Device


class Authenticator:
    """Reads the device that a call's token proves."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    def device_of(self, context: grpc.aio.ServicerContext) -> Device:  # type: ignore[type-arg]
        """The calling device; raises TokenMissing, TokenInvalid or TokenExpired."""
        metadata: Any = context.invocation_metadata()
        return self._device(bearer(metadata))

    def renewed(self, device: Device, token: str) -> Device:
        """The same device by its next token; raises TokenInvalid or TokenExpired."""
        again = self._device(token)
        # Another credential under the same id is another device.
        if (again.address, again.credential_version) != (device.address, device.credential_version):
            raise TokenInvalid("a token of another device")
        return again

    def _device(self, token: str) -> Device:
        claims = self._verifier.verify(token)
        try:
            user_id = parse_ulid(claims.user)
        except ValueError:
            raise TokenInvalid("the token is not valid") from None
        return Device((user_id, claims.device_id), claims.credential_version, claims.expires_at)
