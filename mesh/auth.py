"""Who is calling: Ed25519 tokens of devices; knows no account and no revocation."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mesh.clock import Clock, SystemClock
from mesh.errors import TokenExpired, TokenInvalid, TokenMissing

DEVICE_AUDIENCE = "whimbrel"
METADATA_KEY = "authorization"

_ALGORITHM = "EdDSA"
_DEVICE_KIND = "whimbrel-device+jwt"
_SCHEME = "bearer "
_LONGEST_TOKEN = 2048
_MOST_CACHED = 1024
# A token may come from a machine whose clock is a little ahead.
_LEEWAY = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class DeviceClaims:
    """What a device's access token proves until it expires."""

    user: str
    device_id: int
    credential_version: int
    expires_at: datetime


class TokenSigner:
    """Makes tokens under one key."""

    def __init__(self, key: Ed25519PrivateKey, key_id: str, *, clock: Clock | None = None) -> None:
        self._key = key
        self._key_id = key_id
        self._clock = clock or SystemClock()

    def device_token(
        self, *, user: str, device_id: int, credential_version: int, lifetime: timedelta
    ) -> tuple[str, datetime]:
        """An access token of a device, and when it expires."""
        claims = {"aud": DEVICE_AUDIENCE, "sub": user, "dev": device_id, "cv": credential_version}
        return self._sign(_DEVICE_KIND, claims, lifetime)

    def _sign(
        self, kind: str, claims: Mapping[str, Any], lifetime: timedelta
    ) -> tuple[str, datetime]:
        issued_at = int(self._clock.now().timestamp())
        expires_at = issued_at + int(lifetime.total_seconds())
        payload = {**claims, "iat": issued_at, "exp": expires_at}
        headers = {"kid": self._key_id, "typ": kind}
        token = jwt.encode(payload, self._key, algorithm=_ALGORITHM, headers=headers)
        return token, datetime.fromtimestamp(expires_at, UTC)


class TokenVerifier:
    """Checks the access tokens of devices, offline, and remembers those that were good."""

    def __init__(
        self,
        public_keys: Mapping[str, Ed25519PublicKey],
        audience: str = DEVICE_AUDIENCE,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._public_keys = dict(public_keys)
        self._audience = audience
        self._clock = clock or SystemClock()
        self._known: OrderedDict[str, DeviceClaims] = OrderedDict()

    def verify(self, token: str) -> DeviceClaims:
        """What the token proves; raises TokenInvalid, TokenExpired."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._verified(token)
            self._remember(token, claims)
        if claims.expires_at <= self._clock.now():
            self._known.pop(token, None)
            raise TokenExpired("the token has expired")
        return claims

    def _verified(self, token: str) -> DeviceClaims:
        if len(token) > _LONGEST_TOKEN:
            raise TokenInvalid("the token is not valid")
        try:
            payload = self._payload(token)
            return self._claims(payload, datetime.fromtimestamp(payload["exp"], UTC))
        # Whatever hostile JSON provokes; the caller is not told which.
        except (jwt.PyJWTError, LookupError, TypeError, ValueError, OverflowError, OSError):
            raise TokenInvalid("the token is not valid") from None

    def _payload(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if header.get("typ") != _DEVICE_KIND or "crit" in header or "b64" in header:
            raise ValueError("another kind of token, or one with demands")
        payload = jwt.decode(
            token,
            self._public_keys[header["kid"]],
            algorithms=[_ALGORITHM],
            audience=self._audience,
            # Expiry is checked against the injected clock, and again for a remembered token.
            options={
                "require": ["exp", "iat", "aud", "sub"],
                "strict_aud": True,
                "verify_exp": False,
                "verify_iat": False,
            },
        )
        if payload["iat"] > (self._clock.now() + _LEEWAY).timestamp():
            raise ValueError("issued in the future")
        return payload

    def _remember(self, token: str, claims: DeviceClaims) -> None:
        self._known[token] = claims
        if len(self._known) > _MOST_CACHED:
            self._known.popitem(last=False)

    def _claims(self, payload: Mapping[str, Any], expires_at: datetime) -> DeviceClaims:
        user, device_id, version = payload["sub"], payload["dev"], payload["cv"]
        if not (user and _is_number(device_id) and _is_number(version)):
            raise ValueError("claims of the wrong type")
        return DeviceClaims(user, device_id, version, expires_at)


def bearer(metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
    """The token of a call; raises TokenMissing, and TokenInvalid if there are two."""
    values = [value for key, value in metadata or () if key == METADATA_KEY]
    if not values:
        raise TokenMissing("no bearer token")
    if len(values) > 1 or not isinstance(values[0], str):
        raise TokenInvalid("one bearer token, as text")
    if not values[0].lower().startswith(_SCHEME):
        raise TokenMissing("no bearer token")
    return values[0][len(_SCHEME) :]


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
