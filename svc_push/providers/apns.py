"""Apple's push notification service: HTTP/2, with a provider token signed by the team's key."""

import json
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from mesh.clock import Clock
from svc_push.model import Answer, Delivered, Gone, Later, Refused, Token
from svc_push.providers.http import HttpClient, NotReached, Response

# Apple refuses provider tokens older than an hour, and new ones more often than every 20 minutes.
_TOKEN_LIFE = timedelta(minutes=40)
_TOKEN_LEAST = timedelta(minutes=20)
_COLLAPSE = "whimbrel"  # of at most 64 bytes; a device shows one of them
_RING = json.dumps(
    {"aps": {"alert": {"loc-key": "WHIMBREL_NEW"}, "sound": "default", "mutable-content": 1}}
).encode()
_QUIET = json.dumps({"aps": {"content-available": 1}}).encode()
_TOKEN_GONE = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic", "Unregistered"})
_CREDENTIAL = frozenset({"ExpiredProviderToken", "InvalidProviderToken", "MissingProviderToken"})
_FORBIDDEN = 403


class Apns:
    """Wakes devices of one app."""

    def __init__(
        self,
        http: HttpClient,
        clock: Clock,
        *,
        url: str,
        topic: str,
        key: EllipticCurvePrivateKey,
        key_id: str,
        team_id: str,
        keep: timedelta,
    ) -> None:
        """`keep`: how long Apple is to try."""
        self._http = http
        self._clock = clock
        self._url = url.rstrip("/")
        self._topic = topic
        self._key = key
        self._key_id = key_id
        self._team_id = team_id
        self._keep = keep
        self._bearer = ""
        self._signed_at = datetime.fromtimestamp(0, UTC)

    def gate_of(self, _token: Token) -> str:
        """What shares one fate with others."""
        return "apns"

    async def ring(self, token: Token, *, is_urgent: bool) -> Answer:
        """Send the wake-up once."""
        now = self._clock.now()
        headers = {
            "authorization": f"bearer {self._provider_token(now)}",
            "apns-topic": self._topic,
            "apns-push-type": "alert" if is_urgent else "background",
            "apns-priority": "10" if is_urgent else "5",
            "apns-expiration": str(int((now + self._keep).timestamp())),
            "apns-collapse-id": _COLLAPSE,
        }
        url = f"{self._url}/3/device/{token.secret.hex()}"
        try:
            response = await self._http.post(url, headers, _RING if is_urgent else _QUIET)
        except NotReached as error:
            return Later(str(error))
        return self._read(response, now)

    def _read(self, response: Response, now: datetime) -> Answer:
        if response.status == 200:
            return Delivered()
        said = response.json()
        reason = str(said.get("reason", ""))
        if response.status == 410 or reason in _TOKEN_GONE:
            return Gone(_moment(said.get("timestamp")))
        if response.status == _FORBIDDEN or reason in _CREDENTIAL:
            self._renew(now)
            return response.later("403", now)
        if response.status == 429:
            is_ours = reason == "TooManyRequests"  # for this device
            return Later("429", response.retry_after(now), is_ours=is_ours)
        if response.status >= 500:
            return response.later(str(response.status), now)
        return Refused(str(response.status))

    def _provider_token(self, now: datetime) -> str:
        if not self._bearer or now - self._signed_at >= _TOKEN_LIFE:
            claims = {"iss": self._team_id, "iat": int(now.timestamp())}
            headers = {"kid": self._key_id}
            self._bearer = jwt.encode(claims, self._key, algorithm="ES256", headers=headers)
            self._signed_at = now
        return self._bearer

    def _renew(self, now: datetime) -> None:
        """The token was refused; a new one, unless Apple would take that amiss."""
        if now - self._signed_at >= _TOKEN_LEAST:
            self._bearer = ""


def _moment(milliseconds: object) -> datetime | None:
    if not isinstance(milliseconds, int):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
