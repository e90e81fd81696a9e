"""What an operator gets wrong: all of it is named at the start, and no instance comes up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import svc_gateway.settings
import svc_media.settings
import svc_message.settings
import svc_presence.settings
import svc_push.settings
from mesh.keys import KeySet
from mesh.settings import load

SERVICES = {
    "GATEWAY": svc_gateway.settings.Settings,
    "MEDIA": svc_media.settings.Settings,
    "MESSAGE": svc_message.settings.Settings,
    "PRESENCE": svc_presence.settings.Settings,
    "PUSH": svc_push.settings.Settings,
}
# The settings of each service that name a file, and those of them that it must have.
FILES = {
    "GATEWAY": ({"TOKEN_KEYS"}, {"TOKEN_KEYS"}),
    "MEDIA": (set[str](), set[str]()),
    "MESSAGE": ({"SHARDS", "DIRECT_SHARDS", "TOKEN_KEY"}, {"SHARDS", "TOKEN_KEY"}),
    "PRESENCE": (set[str](), set[str]()),
    "PUSH": (
        {"TOKEN_KEYS", "APNS_KEY", "FCM_ACCOUNT", "VAPID_KEY", "PROVIDER_CA"},
        {"TOKEN_KEYS"},
    ),
}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("WHIMBREL_"):
            monkeypatch.delenv(name)


def complaints(service: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        load(SERVICES[service])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()


def named(lines: list[str], service: str) -> set[str]:
    return {line.partition(":")[0].removeprefix(f"WHIMBREL_{service}_") for line in lines}


@pytest.mark.parametrize("service", SERVICES)
def test_every_bad_file_and_every_bad_value_is_named_at_once_and_not_quoted(
    service: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad"
    bad.write_text('["hunter2"]')
    files, _ = FILES[service]
    for name in files:
        monkeypatch.setenv(f"WHIMBREL_{service}_{name}", str(bad))
    monkeypatch.setenv(f"WHIMBREL_{service}_DRAIN", "hunter2")
    monkeypatch.setenv(f"WHIMBREL_{service}_LOG_LEVEL", "LOUD")
    monkeypatch.setenv(f"WHIMBREL_{service}_NO_SUCH", "hunter2")

    lines = complaints(service, capsys)

    assert named(lines, service) >= {*files, "DRAIN", "LOG_LEVEL", "NO_SUCH", "TLS"}
    assert "hunter2" not in "".join(lines)


@pytest.mark.parametrize("service", SERVICES)
def test_certificates_for_the_metrics_that_are_not_whole_or_not_good_are_named(
    service: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("hunter2")
    for file in ("CERTIFICATE", "CA"):
        name = f"WHIMBREL_{service}_TELEMETRY__PROMETHEUS_TLS__{file}"
        monkeypatch.setenv(name, str(bad))

    lines = complaints(service, capsys)

    [told] = [line for line in lines if "prometheus_tls" in line]
    assert "prometheus_tls: key missing" in told
    assert "bad.pem holds no certificate" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("service", SERVICES)
def test_every_missing_file_is_named_at_once(
    service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, required = FILES[service]

    assert named(complaints(service, capsys), service) >= required


def test_a_public_key_is_none_to_sign_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    public = tmp_path / "public.json"
    KeySet.generate().save_public(public)
    monkeypatch.setenv("WHIMBREL_MESSAGE_TOKEN_KEY", str(public))

    lines = complaints("MESSAGE", capsys)

    assert f"WHIMBREL_MESSAGE_TOKEN_KEY: {public} holds no private key" in lines


def test_a_process_exits_with_2_before_it_listens(tmp_path: Path) -> None:
    shards, keys = tmp_path / "shards.json", tmp_path / "keys.json"
    shards.write_text(json.dumps({"a": 5}))
    KeySet.generate().save(keys)
    told = {"SHARDS": shards, "TOKEN_KEY": keys, "LANES_PER_SHARD": "none"}

    ended = subprocess.run(
        [sys.executable, "-m", "svc_message"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **{f"WHIMBREL_MESSAGE_{name}": str(value) for name, value in told.items()},
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert named(ended.stderr.splitlines(), "MESSAGE") == {"SHARDS", "LANES_PER_SHARD", "TLS"}
