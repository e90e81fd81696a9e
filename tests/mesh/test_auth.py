import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from mesh import auth
from mesh.auth import DeviceClaims, TokenSigner, TokenVerifier
from mesh.errors import TokenExpired, TokenInvalid, TokenMissing
from mesh.keys import KeySet
from mesh.testing import ManualClock

USER = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
KEYS = KeySet.generate()
OTHER_KEYS = KeySet.generate()
TEN_MINUTES = timedelta(minutes=10)


@pytest.fixture
def clock():
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def signer(clock):
    return TokenSigner(KEYS.private_key, KEYS.key_id, clock=clock)


@pytest.fixture
def verifier(clock):
    return TokenVerifier(KEYS.public_keys, clock=clock)


def device_token(signer, **changes):
    identity = {"user": USER, "device_id": 1, "credential_version": 3, "lifetime": TEN_MINUTES}
    return signer.device_token(**{**identity, **changes})[0]


def test_a_device_token_proves_the_device_until_it_expires(signer, verifier, clock):
    token, expires_at = signer.device_token(
        user=USER, device_id=2, credential_version=3, lifetime=TEN_MINUTES
    )

    assert expires_at == clock.now() + TEN_MINUTES
    assert verifier.verify(token) == DeviceClaims(USER, 2, 3, expires_at)


@pytest.mark.parametrize("seen_before", [True, False])
async def test_an_expired_token_says_so_also_when_it_was_good_before(
    signer, verifier, clock, seen_before
):
    token = device_token(signer)
    if seen_before:
        verifier.verify(token)

    await clock.advance(TEN_MINUTES.total_seconds() - 1)
    verifier.verify(token)
    await clock.advance(1)

    with pytest.raises(TokenExpired):
        verifier.verify(token)


def test_a_token_of_an_unknown_key_is_refused(verifier, clock):
    stranger = TokenSigner(OTHER_KEYS.private_key, OTHER_KEYS.key_id, clock=clock)

    with pytest.raises(TokenInvalid):
        verifier.verify(device_token(stranger))


def test_a_token_signed_by_another_key_under_a_known_key_id_is_refused(verifier, clock):
    forger = TokenSigner(OTHER_KEYS.private_key, KEYS.key_id, clock=clock)

    with pytest.raises(TokenInvalid):
        verifier.verify(device_token(forger))


def test_a_changed_token_is_refused(signer, verifier):
    header, payload, signature = device_token(signer).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed = _segment({**claims, "sub": "somebody else"})

    with pytest.raises(TokenInvalid):
        verifier.verify(f"{header}.{changed}.{signature}")


HEADER = {"alg": "EdDSA", "kid": KEYS.key_id, "typ": "whimbrel-device+jwt"}
CLAIMS = {
    "aud": auth.DEVICE_AUDIENCE,
    "sub": USER,
    "dev": 1,
    "cv": 1,
    "iat": 1767225600,
    "exp": 1767225600 + 600,
}


def _segment(content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def _signed(header, claims):
    """A token that the right key really signed, whatever it says."""
    text = f"{_segment(header)}.{_segment(claims)}"
    signature = KEYS.private_key.sign(text.encode())
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _without(content, name):
    return {key: value for key, value in content.items() if key != name}


def _mac(key):
    header = {**HEADER, "alg": "HS256"}
    text = f"{_segment(header)}.{_segment(CLAIMS)}"
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def test_the_hand_made_token_of_these_tests_is_good_as_it_stands(verifier):
    assert verifier.verify(_signed(HEADER, CLAIMS)).user == USER


BAD = {
    "empty": "",
    "garbage": "garbage",
    "dots": "..",
    "too long": "x" * 100_000,
    "not text": "é.é.é",
    "no algorithm": f"{_segment({**HEADER, 'alg': 'none'})}.{_segment(CLAIMS)}.",
    "no algorithm, signed": _signed({**HEADER, "alg": "none"}, CLAIMS),
    "the public key as a secret, raw": _mac(KEYS.public_keys[KEYS.key_id].public_bytes_raw()),
    "the public key as a secret, PEM": _mac(
        KEYS.public_keys[KEYS.key_id].public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ),
    "critical extension": _signed({**HEADER, "crit": ["x"], "x": 1}, CLAIMS),
    "unencoded payload": _signed({**HEADER, "crit": ["b64"], "b64": False}, CLAIMS),
    "critical extension that PyJWT knows": _signed(
        {**HEADER, "crit": ["b64"], "b64": True}, CLAIMS
    ),
    "no key id": _signed(_without(HEADER, "kid"), CLAIMS),
    "key id of another type": _signed({**HEADER, "kid": ["a"]}, CLAIMS),
    "no kind": _signed(_without(HEADER, "typ"), CLAIMS),
    "plain kind": _signed({**HEADER, "typ": "JWT"}, CLAIMS),
    "other audience": _signed(HEADER, {**CLAIMS, "aud": "else"}),
    "several audiences": _signed(HEADER, {**CLAIMS, "aud": [auth.DEVICE_AUDIENCE, "else"]}),
    "from the future": _signed(HEADER, {**CLAIMS, "iat": CLAIMS["iat"] + 60}),
    "not yet": _signed(HEADER, {**CLAIMS, "nbf": 9_999_999_999}),
    "expiry as text": _signed(HEADER, {**CLAIMS, "exp": "soon"}),
    "expiry without end": _signed(HEADER, {**CLAIMS, "exp": 10**30}),
    "user of another type": _signed(HEADER, {**CLAIMS, "sub": 7}),
    "empty user": _signed(HEADER, {**CLAIMS, "sub": ""}),
    "device as text": _signed(HEADER, {**CLAIMS, "dev": "1"}),
    "device as a truth": _signed(HEADER, {**CLAIMS, "dev": True}),
    "device below zero": _signed(HEADER, {**CLAIMS, "dev": -1}),
    "claims of another type": _signed(HEADER, ["a"]),
    **{f"without {name}": _signed(HEADER, _without(CLAIMS, name)) for name in CLAIMS},
}


@pytest.mark.parametrize("token", BAD.values(), ids=BAD.keys())
def test_a_bad_token_is_refused_without_telling_why(verifier, token):
    with pytest.raises(TokenInvalid) as caught:
        verifier.verify(token)

    assert str(caught.value) == "the token is not valid"
    assert not isinstance(caught.value, TokenExpired)


def test_a_forged_expired_token_is_invalid_and_not_expired(verifier):
    forged = jwt.encode(
        {**CLAIMS, "exp": 1}, OTHER_KEYS.private_key, "EdDSA", {"kid": KEYS.key_id, **HEADER}
    )

    with pytest.raises(TokenInvalid):
        verifier.verify(forged)


def test_good_tokens_are_remembered_and_bad_ones_are_not(signer, verifier, monkeypatch):
    token, decodes = device_token(signer), []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *a, **k: (decodes.append(1), decode(*a, **k))[1])

    for _ in range(3):
        verifier.verify(token)
    assert len(decodes) == 1
    for _ in range(2):
        with pytest.raises(TokenInvalid):
            verifier.verify(token + "x")

    assert len(verifier._known) == 1


def test_the_memory_of_tokens_is_bounded(signer, verifier, monkeypatch):
    monkeypatch.setattr(auth, "_MOST_CACHED", 5)

    for device_id in range(20):
        verifier.verify(device_token(signer, device_id=device_id))

    assert len(verifier._known) == 5


def test_the_token_is_taken_from_the_metadata():
    assert auth.bearer((("other", "x"), ("authorization", "Bearer abc"))) == "abc"
    assert auth.bearer((("authorization", "bearer abc"),)) == "abc"


@pytest.mark.parametrize("metadata", [None, (), (("authorization", "Basic abc"),)])
def test_a_call_without_a_token_is_told_so(metadata):
    with pytest.raises(TokenMissing):
        auth.bearer(metadata)


def test_two_tokens_in_one_call_are_refused():
    with pytest.raises(TokenInvalid):
        auth.bearer((("authorization", "Bearer a"), ("authorization", "Bearer b")))
