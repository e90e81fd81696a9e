"""`whimbrel admin limits` against a real etcd."""

import json

import pytest
from typer.testing import CliRunner, Result

from whimbrel_cli.main import app


@pytest.fixture
def limits(etcd):
    def run(*arguments: str) -> Result:
        where = ["--etcd", etcd.endpoint, "--prefix", etcd.prefix]
        shows = [one for one in arguments if one == "--json"]
        command = [one for one in arguments if one != "--json"]
        return CliRunner().invoke(app, ["admin", "limits", *where, *shows, *command])

    return run


def shown(limits) -> dict:
    return json.loads(limits("--json").stdout)


def test_a_limit_is_set_shown_and_taken_back(limits) -> None:
    before = shown(limits)

    assert limits("set", "sends", "--burst", "500", "--per-second", "2.5").exit_code == 0
    assert limits("set", "bytes", "--per-second", "9").exit_code == 0

    after = shown(limits)
    assert (after["sends"]["burst"], after["sends"]["per_second"]) == (500, 2.5)
    assert after["sends"]["is_set"]
    assert after["bytes"]["per_second"] == 9
    assert after["recipient"] == before["recipient"]
    assert "500" in limits().stdout

    assert limits("reset", "sends").exit_code == 0
    assert shown(limits)["sends"] == before["sends"]
    assert shown(limits)["bytes"]["is_set"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("set", "sedns", "--burst", "5"), "limits are bytes, recipient, registrations, sends"),
        (("reset", "sedns"), "limits are bytes, recipient, registrations, sends"),
        (("set", "sends", "--burst=-5"), "burst is from 1 to"),
        (("set", "bytes", "--burst", "5"), "burst is from 262144 to"),
        (("set", "sends", "--per-second=-1"), "per_second is from"),
        (("set", "sends", "--per-second", "nan"), "per_second is from"),
        (("set", "sends"), "an override is an object of"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(limits, arguments, complaint) -> None:
    result = limits(*arguments)

    assert result.exit_code == 1
    assert complaint in result.stderr
    assert not any(limit["is_set"] for limit in shown(limits).values())


def test_an_etcd_that_does_not_answer_is_named() -> None:
    result = CliRunner().invoke(app, ["admin", "limits", "--etcd", "127.0.0.1:1"])

    assert result.exit_code == 1
    assert "etcd does not answer" in result.stderr
