"""A Web Push server (RFC 8030) that knows VAPID (RFC 8292), and devices that subscribe to it."""

import base64
import re
import secrets
from dataclasses import dataclass, field

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mesh.clock import Clock
from whimbrel_cli.providers.arrivals import Arrivals, Rules
from whimbrel_cli.providers.http import Reply, Request

_PATH = "/web-push/"
_MOST_BODY = 4096
_MOST_AHEAD = 24 * 3600
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
_VAPID = re.compile(r"vapid t=([\w.-]+), ?k=([\w-]+)")
_URGENCIES = {"very-low", "low", "normal", "high"}


@dataclass(frozen=True)
class Subscribed:
    """A device's subscription, with what only the device knows."""

    path: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    auth: bytes = field(repr=False)

    @property
    def p256dh(self) -> bytes:
        """The public key that others encrypt for."""
        return _point(self.key.public_key())


class SimulatedWebPush:
    """Takes messages for those that have subscribed, and reads them as their devices would."""

    def __init__(self, key: ec.EllipticCurvePublicKey, arrivals: Arrivals, clock: Clock) -> None:
        self._key = key
        self._arrivals = arrivals
        self._clock = clock
        self._subscribed: dict[str, Subscribed] = {}
        self.origin = ""
        self.rules = Rules()

    def takes(self, path: str) -> bool:
        return path.startswith(_PATH)

    def subscribe(self) -> Subscribed:
        """Subscribe a new device."""
        key = ec.generate_private_key(ec.SECP256R1())
        subscribed = Subscribed(_PATH + secrets.token_urlsafe(16), key, secrets.token_bytes(16))
        self._subscribed[subscribed.path] = subscribed
        return subscribed

    async def answer(self, request: Request) -> Reply:
        """Enforce the rules."""
        if request.path in self.rules.gone:
            return self._refuse(410, "gone")
        subscribed = self._subscribed.get(request.path)
        if subscribed is None:
            return self._refuse(404, "unknown")
        wrong = self._wrong(request)
        if wrong is not None:
            return self._refuse(*wrong)
        try:
            payload = decrypt(bytes(request.body), subscribed)
        except (InvalidTag, ValueError):
            return self._refuse(400, "cannot be read")
        is_urgent = request.headers["urgency"] == "high"
        await self._arrivals.add("web push", request.path, payload, is_urgent=is_urgent)
        return Reply(201, {"location": f"{self.origin}/message/{secrets.token_urlsafe(8)}"})

    def _wrong(self, request: Request) -> tuple[int, str] | None:
        headers = request.headers
        wrong = {
            "ttl": not headers.get("ttl", "").isdecimal(),
            "urgency": headers.get("urgency", "normal") not in _URGENCIES,
            "topic": not _TOPIC.fullmatch(headers.get("topic", "none")),
            "content-encoding": headers.get("content-encoding") != "aes128gcm",
        }
        for name, is_so in wrong.items():
            if is_so:
                return 400, name
        if len(request.body) > _MOST_BODY:
            return 413, "too large"
        return None if self._is_authorized(request) else (403, "vapid")

    def _is_authorized(self, request: Request) -> bool:
        match = _VAPID.fullmatch(request.headers.get("authorization", ""))
        if match is None or _unbased(match[2]) != _point(self._key):
            return False
        try:
            claims = jwt.decode(
                match[1],
                self._key,
                algorithms=["ES256"],
                audience=self.origin,
                options={"verify_exp": False},
            )
        except jwt.InvalidTokenError:
            return False
        ahead = claims.get("exp", 0) - self._clock.now().timestamp()
        return 0 < ahead <= _MOST_AHEAD and str(claims.get("sub", "")).startswith("mailto:")

    def _refuse(self, status: int, reason: str) -> Reply:
        self.rules.refused.append(reason)
        return Reply(status)


def decrypt(body: bytes, subscribed: Subscribed) -> bytes:
    """Read a body of one record as RFC 8291 has it. Raises InvalidTag, ValueError."""
    salt, id_length = body[:16], body[20]
    sender, sealed = body[21 : 21 + id_length], body[21 + id_length :]
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
    shared = subscribed.key.exchange(ec.ECDH(), theirs)
    info = b"WebPush: info\0" + subscribed.p256dh + sender
    key = _hkdf(shared, subscribed.auth, info, 32)
    nonce = _hkdf(key, salt, b"Content-Encoding: nonce\0", 12)
    content_key = _hkdf(key, salt, b"Content-Encoding: aes128gcm\0", 16)
    padded = AESGCM(content_key).decrypt(nonce, sealed, None).rstrip(b"\0")
    if not padded.endswith(b"\2"):
        raise ValueError("not the last record")
    return padded[:-1]


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _unbased(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
