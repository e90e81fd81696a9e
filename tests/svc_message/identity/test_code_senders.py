"""The ways by which codes go out."""

import asyncio
import hashlib
import hmac
import json
import stat
from datetime import UTC, datetime

import httpx
import pytest

from mesh.testing import ManualClock
from svc_message.identity.code_senders import CodeNotSent, FileCodeSender, WebhookCodeSender

NUMBER, CODE = "+4915112345678", "123456"
SOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
URL = "https://text.example/send?key=secret"


def a_webhook(answer, url=URL) -> WebhookCodeSender:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return WebhookCodeSender(client, url, b"shared", clock=ManualClock(SOON))


async def test_the_file_gets_a_line_for_each_code_and_is_its_owner_s(tmp_path) -> None:
    path = tmp_path / "codes.jsonl"
    sender = FileCodeSender(path)

    await asyncio.gather(*(sender.send(f"+4915{n:08}", CODE, SOON) for n in range(50)))

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["phone_number"] for line in lines} == {f"+4915{n:08}" for n in range(50)}
    assert lines[0]["code"] == CODE
    assert datetime.fromisoformat(lines[0]["expires_at"]) == SOON
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_file_that_cannot_be_written_is_a_code_that_was_not_sent(tmp_path) -> None:
    with pytest.raises(CodeNotSent):
        await FileCodeSender(tmp_path / "nowhere" / "codes").send(NUMBER, CODE, SOON)


async def test_the_webhook_gets_a_signed_post() -> None:
    posts = []

    def answer(request):
        posts.append(request)
        return httpx.Response(204)

    await a_webhook(answer).send(NUMBER, CODE, SOON)

    [post] = posts
    body = {"phone_number": NUMBER, "code": CODE, "expires_at": SOON.isoformat()}
    assert (post.method, str(post.url), json.loads(post.content)) == ("POST", URL, body)
    seconds = str(int(SOON.timestamp()))
    signed = seconds.encode() + b"." + post.content
    digest = hmac.new(b"shared", signed, hashlib.sha256).hexdigest()
    assert post.headers["whimbrel-signature"] == f"t={seconds},v1={digest}"


@pytest.mark.parametrize("status", [301, 400, 500])
async def test_any_other_answer_is_a_code_that_was_not_sent(status) -> None:
    asked = []

    def answer(request):
        asked.append(request)
        return httpx.Response(status, headers={"location": "https://elsewhere.example/"})

    with pytest.raises(CodeNotSent):
        await a_webhook(answer).send(NUMBER, CODE, SOON)

    assert len(asked) == 1


async def test_a_webhook_that_is_away_says_nothing_of_its_url() -> None:
    def answer(request):
        raise httpx.ConnectError("no route to " + str(request.url))

    with pytest.raises(CodeNotSent) as failure:
        await a_webhook(answer).send(NUMBER, CODE, SOON)

    assert "secret" not in str(failure.value)
    assert failure.value.retry_after is not None


@pytest.mark.parametrize(
    "url",
    ["", "text.example", "http://text.example/", "ftp://127.0.0.1/", "http://127.0.0.1.example/"],
)
def test_codes_go_nowhere_in_clear(url) -> None:
    with pytest.raises(ValueError, match="https"):
        a_webhook(None, url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/x", "http://[::1]/", "http://localhost/", "https://a.example/"]
)
def test_codes_go_by_https_or_within_this_machine(url) -> None:
    a_webhook(None, url)
