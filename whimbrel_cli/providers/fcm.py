"""Firebase Cloud Messaging, HTTP v1, and the token endpoint of OAuth 2, as documented."""

import json
import re
import secrets
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from mesh.clock import Clock
from whimbrel_cli.providers.arrivals import Arrivals, Rules
from whimbrel_cli.providers.credentials import FCM_EMAIL, FCM_PROJECT
from whimbrel_cli.providers.http import Reply, Request

TOKEN_PATH = "/oauth/token"  # noqa: S105  a path
_SEND_PATH = f"/v1/projects/{FCM_PROJECT}/messages:send"
_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_MOST_PAYLOAD = 4096
_LIFE = 3600
_TTL = re.compile(r"\d+(\.\d+)?s")
_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class SimulatedFcm:
    """Takes messages to any token that has not gone."""

    def __init__(
        self, key: rsa.RSAPublicKey, arrivals: Arrivals, clock: Clock, *, token_uri: str = ""
    ) -> None:
        self._key = key
        self._arrivals = arrivals
        self._clock = clock
        self._issued: dict[str, float] = {}
        self.token_uri = token_uri
        self.rules = Rules()

    def takes(self, path: str) -> bool:
        return path.startswith("/v1/") or path == TOKEN_PATH

    async def answer(self, request: Request) -> Reply:
        """Enforce the rules."""
        if request.path == TOKEN_PATH:
            return self._issue(request)
        if request.path != _SEND_PATH:
            return self._refuse(404, "NOT_FOUND")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._issued.get(bearer, 0) < self._clock.now().timestamp():
            return self._refuse(401, "UNAUTHENTICATED", code="THIRD_PARTY_AUTH_ERROR")
        try:
            message = json.loads(bytes(request.body))["message"]
            wrong, token = _wrong(message), message["token"]
        except (KeyError, TypeError, ValueError):
            wrong, token = "message", ""
        if wrong:
            return self._refuse(400, "INVALID_ARGUMENT", field=wrong)
        if token in self.rules.gone:
            return self._refuse(404, "NOT_FOUND", code="UNREGISTERED")
        payload = json.dumps(message["data"], sort_keys=True).encode()
        is_urgent = message["android"]["priority"] == "HIGH"
        await self._arrivals.add("fcm", token, payload, is_urgent=is_urgent)
        return Reply(200, body=json.dumps({"name": f"projects/{FCM_PROJECT}/messages/1"}).encode())

    def expire_tokens(self) -> None:
        """Take back what was issued."""
        self._issued.clear()

    def _issue(self, request: Request) -> Reply:
        form = parse_qs(bytes(request.body).decode())
        now = self._clock.now().timestamp()
        try:
            claims = jwt.decode(
                form["assertion"][0],
                self._key,
                algorithms=["RS256"],
                audience=self.token_uri,
                options={"verify_exp": False, "verify_iat": False},
            )
            is_well = claims["scope"] == _SCOPE and claims["iss"] == FCM_EMAIL
            is_well = is_well and form["grant_type"] == [_GRANT]
            is_well = is_well and now < claims["exp"] <= claims["iat"] + _LIFE
        except (KeyError, jwt.InvalidTokenError):
            is_well = False
        if not is_well:
            self.rules.refused.append("invalid_grant")
            return Reply(400, body=b'{"error": "invalid_grant"}')
        bearer = secrets.token_urlsafe(24)
        self._issued[bearer] = now + _LIFE
        answer = {"access_token": bearer, "expires_in": _LIFE, "token_type": "Bearer"}
        return Reply(200, body=json.dumps(answer).encode())

    def _refuse(self, status: int, reason: str, *, code: str = "", field: str = "") -> Reply:
        self.rules.refused.append(code or reason)
        details: list[dict[str, Any]] = []
        if code:
            details.append({"@type": _ERROR, "errorCode": code})
        if field:
            details.append({"@type": _BAD_REQUEST, "fieldViolations": [{"field": field}]})
        error = {"code": status, "status": reason, "details": details}
        return Reply(status, body=json.dumps({"error": error}).encode())


def _wrong(message: dict[str, Any]) -> str:
    """The field that breaks a rule; empty if none does."""
    data, android = message["data"], message["android"]
    if not isinstance(message["token"], str) or not message["token"].strip():
        return "message.token"
    if not all(isinstance(value, str) for value in data.values()):
        return "message.data"
    if len(json.dumps(data).encode()) > _MOST_PAYLOAD:
        return "message.data"
    if android["priority"] not in {"HIGH", "NORMAL"}:
        return "message.android.priority"
    if not _TTL.fullmatch(android["ttl"]):
        return "message.android.ttl"
    return ""
