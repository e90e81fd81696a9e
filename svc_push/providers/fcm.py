"""Firebase Cloud Messaging, HTTP v1, with access tokens of a service account (OAuth 2)."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import jwt

from mesh.clock import Clock
from svc_push.model import Answer, Delivered, Gone, Later, Refused, Token
from svc_push.providers.http import HttpClient, NotReached, Response

_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_LIFE = timedelta(hours=1)
_EARLY = timedelta(minutes=5)
_COLLAPSE = "whimbrel"
_USUAL_PAUSE = timedelta(minutes=1)  # what Google asks for after 429 without Retry-After
_FORBIDDEN = frozenset({401, 403})
_TOKEN_GONE = frozenset({"UNREGISTERED", "SENDER_ID_MISMATCH"})


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Who asks, as Google gives it out."""

    email: str
    project: str
    token_uri: str
    key_id: str
    private_key: str = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the JSON file of a service account. Raises ValueError, OSError."""
        try:
            said = json.loads(path.read_bytes())
            names = ("client_email", "project_id", "token_uri", "private_key_id", "private_key")
            return cls(*(str(said[name]) for name in names))
        except (KeyError, TypeError, ValueError):
            # The cause may quote the file, so it is dropped.
            raise ValueError(f"{path} is not the key of a service account") from None


class _Refusing(Exception):
    """The account got no access token."""

    def __init__(self, answer: Later) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class Fcm:
    """Wakes the devices of one project."""

    def __init__(
        self, http: HttpClient, clock: Clock, *, url: str, account: ServiceAccount, keep: timedelta
    ) -> None:
        """`keep`: how long Google is to try."""
        self._http = http
        self._clock = clock
        self._url = f"{url.rstrip('/')}/v1/projects/{account.project}/messages:send"
        self._account = account
        self._keep = keep
        self._bearer = ""
        self._bearer_until = datetime.fromtimestamp(0, UTC)
        self._renewing = asyncio.Lock()

    def gate_of(self, _token: Token) -> str:
        """What shares one fate with others."""
        return "fcm"

    async def ring(self, token: Token, *, is_urgent: bool) -> Answer:
        """Send the wake-up once."""
        message = {
            "token": token.secret.decode(),
            "data": {"wake": "1"},
            "android": {
                "priority": "HIGH" if is_urgent else "NORMAL",
                "collapse_key": _COLLAPSE,
                "ttl": f"{int(self._keep.total_seconds())}s",
            },
        }
        try:
            headers = {
                "authorization": f"Bearer {await self._access_token()}",
                "content-type": "application/json",
            }
            body = json.dumps({"message": message}).encode()
            response = await self._http.post(self._url, headers, body)
        except _Refusing as refusing:
            return refusing.answer
        except NotReached as error:
            return Later(str(error))
        return self._read(response)

    def _read(self, response: Response) -> Answer:
        status, now = response.status, self._clock.now()
        if status == 200:
            return Delivered()
        code, field_name = _details(response)
        if status == 404 or code in _TOKEN_GONE or field_name == "message.token":
            return Gone()
        if status in _FORBIDDEN:
            self._bearer = ""
        elif status == 429:
            return Later("429", response.retry_after(now) or _USUAL_PAUSE)
        elif status < 500:
            return Refused(str(status))
        return response.later(str(status), now)

    async def _access_token(self) -> str:
        """A token that lasts a while. Raises _Refusing, NotReached."""
        async with self._renewing:  # one asks, the others get what it was given
            now = self._clock.now()
            if not self._bearer or now >= self._bearer_until:
                response = await self._ask_for_token(now)
                said = response.json()
                if response.status != 200 or not said.get("access_token"):
                    raise _Refusing(response.later(f"token {response.status}", now))
                self._bearer = str(said["access_token"])
                life = timedelta(seconds=float(said.get("expires_in", 3600)))
                self._bearer_until = now + max(life - _EARLY, life / 2)
            return self._bearer

    async def _ask_for_token(self, now: datetime) -> Response:
        claims = {
            "iss": self._account.email,
            "scope": _SCOPE,
            "aud": self._account.token_uri,
            "iat": int(now.timestamp()),
            "exp": int((now + _ASSERTION_LIFE).timestamp()),
        }
        assertion = jwt.encode(
            claims,
            self._account.private_key,
            algorithm="RS256",
            headers={"kid": self._account.key_id},
        )
        form = urlencode({"grant_type": _GRANT, "assertion": assertion}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return await self._http.post(self._account.token_uri, headers, form)


def _details(response: Response) -> tuple[str, str]:
    """FCM's own error code, and the field that a bad request names."""
    error: Any = response.json().get("error", {})
    details = error.get("details", []) if isinstance(error, dict) else []
    code = field_name = ""
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict):
            code = code or str(detail.get("errorCode", ""))
            for violation in detail.get("fieldViolations", []):
                field_name = field_name or str(violation.get("field", ""))
    return code, field_name
