import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from svc_media.signing import Bucket, Credentials, Edge, edge_token

_KEYS = ("AKIDEXAMPLE", "a/secret+key")
_ENDPOINT = "https://store.example:9000"


@pytest.mark.parametrize("in_path", [True, False])
@pytest.mark.parametrize(
    ("method", "headers", "query"),
    [
        ("GET", {}, {"response-content-disposition": 'attachment; filename="a b+c~d"'}),
        ("PUT", {"content-length": "17", "x-amz-checksum-sha256": "3q2+7/8="}, {}),
        ("PUT", {"content-length": "17"}, {"partNumber": "12", "uploadId": "a/b=c d"}),
        ("POST", {}, {"uploads": ""}),
    ],
    ids=["read", "put", "part", "begin"],
)
def test_a_url_is_signed_as_the_reference_signs_it(
    monkeypatch, method, headers, query, in_path
) -> None:
    now = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)
    bucket = Bucket(_ENDPOINT, "pail", Credentials(*_KEYS), region="eu-1", in_path=in_path)

    url = bucket.presign(
        method, "0AB", now=now, lifetime=timedelta(minutes=5), headers=headers, query=query
    )

    plain = f"{_ENDPOINT}/pail/0AB" if in_path else "https://pail.store.example:9000/0AB"
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now.replace(tzinfo=None))
    request = AWSRequest(method, plain, headers=headers, params=query)
    S3SigV4QueryAuth(BotoCredentials(*_KEYS), "s3", "eu-1", expires=300).add_auth(request)
    assert url.partition("?")[0] == plain
    assert _query(url) == _query(request.url)


def test_a_key_of_yesterday_does_not_sign_today() -> None:
    bucket = Bucket(_ENDPOINT, "pail", Credentials(*_KEYS), region="eu-1", in_path=True)
    days = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 1)]

    urls = [bucket.presign("GET", "0", now=day, lifetime=timedelta(1)) for day in days]

    assert urls[0] == urls[2] != urls[1]


def test_a_url_of_the_cdn_is_signed_over_key_id_expiry_and_path() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)

    url = Edge("https://cdn.example/m", "k1", b"key").presign(
        "0AB", now=now, lifetime=timedelta(minutes=5)
    )

    expires = int(now.timestamp()) + 300
    query = parse_qs(urlsplit(url).query)
    assert url.startswith("https://cdn.example/m/0AB?")
    assert query == {
        "kid": ["k1"],
        "exp": [str(expires)],
        "sig": [edge_token(b"key", "k1", expires, "/m/0AB")],
    }
    told = hmac.digest(b"key", f"k1\n{expires}\n/m/0AB".encode(), hashlib.sha256)
    assert query["sig"][0].encode().translate(bytes.maketrans(b"-_", b"+/")) in _based(told)


def test_no_key_is_shown() -> None:
    assert _KEYS[1] not in repr(Credentials(*_KEYS))


def _query(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)


def _based(raw: bytes) -> bytes:
    import base64

    return base64.b64encode(raw)
