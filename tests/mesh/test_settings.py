from typing import Annotated

import pytest
from pydantic import Field, PositiveInt, SecretStr
from pydantic_settings import SettingsConfigDict

from mesh import settings


class Store(settings.Section):
    size: PositiveInt = 8
    """Connections to one shard."""


class Example(settings.Settings):
    model_config = SettingsConfigDict(env_prefix="WHIMBREL_EXAMPLE_")

    listen: str = "127.0.0.1:0"
    """Where to
    listen."""
    keys: str
    """The file of keys."""
    password: SecretStr = SecretStr("hunter2")
    lanes: Annotated[int, Field(ge=1)] = 2
    store: Store = Store()


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    monkeypatch.setenv("WHIMBREL_EXAMPLE_KEYS", "/keys")


def refused(capsys):
    with pytest.raises(SystemExit) as caught:
        settings.load(Example)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("WHIMBREL_EXAMPLE_LISTEN", "0.0.0.0:1")
    monkeypatch.setenv("WHIMBREL_EXAMPLE_STORE__SIZE", "3")
    monkeypatch.setenv("WHIMBREL_OTHER_THING", "of another service")

    loaded = settings.load(Example)

    assert (loaded.listen, loaded.keys, loaded.store.size) == ("0.0.0.0:1", "/keys", 3)


def test_settings_do_not_change_after_the_start():
    loaded = settings.load(Example)

    with pytest.raises(ValueError, match="frozen"):
        loaded.lanes = 3  # type: ignore[misc]


def test_everything_that_is_wrong_is_named_at_once(monkeypatch, capsys):
    monkeypatch.delenv("WHIMBREL_EXAMPLE_KEYS")
    monkeypatch.setenv("WHIMBREL_EXAMPLE_LANES", "0")
    monkeypatch.setenv("WHIMBREL_EXAMPLE_STORE__SIZE", "many")
    monkeypatch.setenv("WHIMBREL_EXAMPLE_LISEN", "typo")
    monkeypatch.setenv("WHIMBREL_EXAMPLE_STORE__SEIZE", "typo")

    complaints = refused(capsys)

    assert {line.partition(":")[0] for line in complaints} == {
        "WHIMBREL_EXAMPLE_KEYS",
        "WHIMBREL_EXAMPLE_LANES",
        "WHIMBREL_EXAMPLE_STORE__SIZE",
        "WHIMBREL_EXAMPLE_LISEN",
        "WHIMBREL_EXAMPLE_STORE__SEIZE",
    }


def test_a_bad_value_is_not_repeated(monkeypatch, capsys):
    monkeypatch.setenv("WHIMBREL_EXAMPLE_LANES", "s3cret-in-the-wrong-place")
    monkeypatch.setenv("WHIMBREL_EXAMPLE_S3CRET", "s3cret-too")

    complaints = "\n".join(refused(capsys))

    assert "s3cret" not in complaints


def test_secrets_are_not_shown():
    assert "hunter2" not in repr(settings.load(Example))
    assert "hunter2" not in settings.describe(Example)


def test_every_knob_is_described_with_its_default():
    assert settings.describe(Example).splitlines() == [
        "WHIMBREL_EXAMPLE_LISTEN  (default 127.0.0.1:0)",
        "    Where to listen.",
        "WHIMBREL_EXAMPLE_KEYS  (required)",
        "    The file of keys.",
        "WHIMBREL_EXAMPLE_PASSWORD  (default (secret))",
        "WHIMBREL_EXAMPLE_LANES  (default 2)",
        "WHIMBREL_EXAMPLE_STORE__SIZE  (default 8)",
        "    Connections to one shard.",
    ]
