"""What an instance is told about codes has to make sense before it starts."""

import pytest
from pydantic import ValidationError

from svc_message.identity.code_senders import FileCodeSender, WebhookCodeSender
from svc_message.identity.wiring import open_sender
from svc_message.settings import Settings


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "unread.json"
    path.write_text("{}")

    def make(**changes) -> Settings:
        return Settings(shards=path, token_key=path, tls={"insecure": True}, **changes)

    return make


def test_codes_are_not_demanded_where_none_can_be_sent(settings, tmp_path) -> None:
    with pytest.raises(ValidationError, match="codes_webhook or codes_file"):
        settings(registration="code")

    assert settings(registration="code", codes_file=tmp_path / "codes").registration == "code"


def test_a_webhook_needs_its_secret(settings) -> None:
    with pytest.raises(ValidationError, match="codes_webhook_secret"):
        settings(codes_webhook="https://text.example/")


async def test_the_sender_is_the_one_that_the_settings_name(settings, tmp_path) -> None:
    webhook = {"codes_webhook": "https://text.example/", "codes_webhook_secret": "shared"}
    senders = []

    for changes in ({}, {"codes_file": tmp_path / "codes"}, webhook):
        async with open_sender(settings(**changes)) as sender:
            senders.append(type(sender))
    with pytest.raises(ValueError, match="https"):
        async with open_sender(settings(**{**webhook, "codes_webhook": "http://text.example/"})):
            pass

    assert senders == [type(None), FileCodeSender, WebhookCodeSender]
