"""Apple's push notification service, as its documentation has it."""

import json
import re
from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.clock import Clock
from whimbrel_cli.providers.arrivals import Arrivals, Rules
from whimbrel_cli.providers.credentials import APNS_KEY_ID, APNS_TEAM_ID, APNS_TOPIC
from whimbrel_cli.providers.http import Reply, Request

_PATH = re.compile(r"/3/device/([0-9a-f]+)")
_MOST_PAYLOAD = 4096
_MOST_COLLAPSE = 64
_MOST_AGE = 3600
_LEAST_AGE = 1200
_TYPES = {"alert", "background"}


class SimulatedApns:
    """Takes pushes to any token of 32 bytes that has not gone."""

    def __init__(self, key: ec.EllipticCurvePublicKey, arrivals: Arrivals, clock: Clock) -> None:
        self._key = key
        self._arrivals = arrivals
        self._clock = clock
        self._bearers: dict[int, tuple[str, float]] = {}  # by connection, and since when
        self.rules = Rules()

    def takes(self, path: str) -> bool:
        return path.startswith("/3/")

    async def answer(self, request: Request) -> Reply:
        """Enforce the rules, in the documented order of importance."""
        checks: tuple[Callable[[Request], Reply | None], ...] = (
            self._path,
            self._authorization,
            self._headers,
            self._payload,
            self._token,
        )
        for check in checks:
            if (reply := check(request)) is not None:
                return reply
        is_urgent = request.headers["apns-push-type"] == "alert"
        token = request.path.rpartition("/")[2]
        await self._arrivals.add("apns", token, bytes(request.body), is_urgent=is_urgent)
        return Reply(200, {"apns-id": "00000000-0000-0000-0000-000000000000"})

    def _path(self, request: Request) -> Reply | None:
        if request.method != "POST":
            return self._refuse(405, "MethodNotAllowed")
        return None if _PATH.fullmatch(request.path) else self._refuse(404, "BadPath")

    def _authorization(self, request: Request) -> Reply | None:
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        if kind != "bearer":
            return self._refuse(403, "MissingProviderToken")
        try:
            claims = jwt.decode(
                bearer, self._key, algorithms=["ES256"], options={"verify_iat": False}
            )
            is_ours = jwt.get_unverified_header(bearer).get("kid") == APNS_KEY_ID
        except jwt.InvalidTokenError:
            return self._refuse(403, "InvalidProviderToken")
        if not is_ours or claims.get("iss") != APNS_TEAM_ID:
            return self._refuse(403, "InvalidProviderToken")
        now = self._clock.now().timestamp()
        if now - claims.get("iat", 0) > _MOST_AGE:
            return self._refuse(403, "ExpiredProviderToken")
        known, renewed_at = self._bearers.get(request.connection, ("", float("-inf")))
        if bearer != known:
            if now - renewed_at < _LEAST_AGE:
                return self._refuse(429, "TooManyProviderTokenUpdates")
            self._bearers[request.connection] = bearer, now
        return None

    def _headers(self, request: Request) -> Reply | None:
        headers = request.headers
        if headers.get("apns-topic") is None:
            return self._refuse(400, "MissingTopic")
        kind, priority = headers.get("apns-push-type", ""), headers.get("apns-priority", "10")
        wrong = {
            "TopicDisallowed": headers["apns-topic"] != APNS_TOPIC,
            "BadCollapseId": len(headers.get("apns-collapse-id", "").encode()) > _MOST_COLLAPSE,
            "InvalidPushType": kind not in _TYPES,
            "BadPriority": priority not in {"1", "5", "10"}
            or (kind == "background" and priority != "5"),
            "BadExpirationDate": not headers.get("apns-expiration", "0").isdecimal(),
        }
        return next((self._refuse(400, reason) for reason, is_so in wrong.items() if is_so), None)

    def _payload(self, request: Request) -> Reply | None:
        if len(request.body) > _MOST_PAYLOAD:
            return self._refuse(413, "PayloadTooLarge")
        try:
            is_well = "aps" in json.loads(bytes(request.body))
        except (TypeError, ValueError):
            is_well = False
        return None if is_well else self._refuse(400, "PayloadEmpty")

    def _token(self, request: Request) -> Reply | None:
        token = request.path.rpartition("/")[2]
        if len(token) != 64:
            return self._refuse(400, "BadDeviceToken")
        if token in self.rules.gone:
            return self._refuse(410, "Unregistered", timestamp=self.rules.gone[token])
        return None

    def _refuse(self, status: int, reason: str, **more: int) -> Reply:
        self.rules.refused.append(reason)
        return Reply(status, body=json.dumps({"reason": reason, **more}).encode())
