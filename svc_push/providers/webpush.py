"""Web Push (RFC 8030): encrypted for the device (RFC 8291), signed by VAPID (RFC 8292)."""

import base64
import os
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mesh.clock import Clock
from svc_push.model import Answer, Delivered, Gone, Later, Refused, Subscription, Token
from svc_push.providers.http import HttpClient, NotReached, Response

_WAKE = b'{"wake":1}'
_TOPIC = "whimbrel"  # a push server keeps one message of a topic; at most 32 characters
_SIGNED_FOR = timedelta(hours=12)  # a push server takes at most 24
_RECORD_BYTES = 4096
_SALT_BYTES = 16
_LAST_RECORD = b"\x02"
_MOST_SIGNED = 1000


class WebPush:
    """Wakes devices through whatever push server their subscriptions name."""

    def __init__(
        self,
        http: HttpClient,
        clock: Clock,
        *,
        key: ec.EllipticCurvePrivateKey,
        subject: str,
        keep: timedelta,
    ) -> None:
        """`keep`: how long the push server is to try; `subject`: whom it may write to."""
        self._http = http
        self._clock = clock
        self._key = key
        self._subject = subject
        self._keep = keep
        self.public_key = _point(key.public_key())
        self._signed: dict[str, tuple[str, datetime]] = {}

    def gate_of(self, token: Token) -> str:
        """What shares one fate with others: a push server that is away is not all of them."""
        return f"web push {_origin(Subscription.unpack(token.secret).endpoint)}"

    async def ring(self, token: Token, *, is_urgent: bool) -> Answer:
        """Send the wake-up once."""
        subscription, now = Subscription.unpack(token.secret), self._clock.now()
        signed = self._vapid(_origin(subscription.endpoint), now)
        headers = {
            "authorization": f"vapid t={signed}, k={_based(self.public_key)}",
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(int(self._keep.total_seconds())),
            "urgency": "high" if is_urgent else "normal",
            "topic": _TOPIC,
        }
        try:
            body = encrypt(_WAKE, subscription.p256dh, subscription.auth)
        except ValueError:  # no point of the curve: nobody can read what is encrypted for it
            return Gone()
        try:
            response = await self._http.post(subscription.endpoint, headers, body)
        except NotReached as error:
            return Later(str(error))
        return _read(response, now)

    def _vapid(self, origin: str, now: datetime) -> str:
        signed, until = self._signed.get(origin, ("", now))
        if until - now <= _SIGNED_FOR / 2:
            until = now + _SIGNED_FOR
            claims = {"aud": origin, "exp": int(until.timestamp()), "sub": self._subject}
            signed = jwt.encode(claims, self._key, algorithm="ES256")
            if len(self._signed) >= _MOST_SIGNED:
                self._signed.clear()
            self._signed[origin] = signed, until
        return signed


def encrypt(
    plaintext: bytes,
    p256dh: bytes,
    auth: bytes,
    *,
    own: ec.EllipticCurvePrivateKey | None = None,
    salt: bytes | None = None,
) -> bytes:
    """The body of a push, one record of aes128gcm; key and salt are fresh except in tests.

    Raises ValueError if `p256dh` is no point of the curve.
    """
    own, salt = own or ec.generate_private_key(ec.SECP256R1()), salt or os.urandom(_SALT_BYTES)
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    own_point = _point(own.public_key())
    shared = own.exchange(ec.ECDH(), theirs)
    key = _hkdf(shared, auth, b"WebPush: info\0" + p256dh + own_point, 32)
    content_key = _hkdf(key, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _hkdf(key, salt, b"Content-Encoding: nonce\0", 12)
    sealed = AESGCM(content_key).encrypt(nonce, plaintext + _LAST_RECORD, None)
    header = salt + _RECORD_BYTES.to_bytes(4, "big") + bytes([len(own_point)]) + own_point
    return header + sealed


def _read(response: Response, now: datetime) -> Answer:
    if response.status in {200, 201, 202, 204}:
        return Delivered()
    if response.status in {404, 410}:
        return Gone()
    if response.status == 429 or response.status >= 500:
        return response.later(str(response.status), now)
    return Refused(str(response.status))


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _origin(url: str) -> str:
    split = urlsplit(url)
    return f"{split.scheme}://{split.netloc}"


def _based(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
