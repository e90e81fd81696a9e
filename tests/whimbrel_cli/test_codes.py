import json
from datetime import UTC, datetime, timedelta

from typer.testing import CliRunner

from svc_message.identity.code_senders import FileCodeSender
from whimbrel_cli.main import app
from whimbrel_cli.stack.environment import codes_file

ALICE, BOB = "+4915112345678", "+4915112345679"


async def send(data, number, code, *, minutes=10) -> None:
    expires_at = datetime.now(UTC) + timedelta(minutes=minutes)
    await FileCodeSender(codes_file(data)).send(number, code, expires_at)


def run(data, *arguments):
    result = CliRunner().invoke(app, ["codes", "--data", str(data), *arguments])
    assert result.exit_code == 0, result.output
    return result


async def test_it_shows_the_newest_code_of_each_number_that_still_counts(tmp_path) -> None:
    await send(tmp_path, ALICE, "111111")
    await send(tmp_path, BOB, "222222")
    await send(tmp_path, ALICE, "333333")
    await send(tmp_path, "+4915112345670", "444444", minutes=-1)

    shown = json.loads(run(tmp_path, "--json").stdout)

    assert [(one["phone_number"], one["code"]) for one in shown] == [
        (BOB, "222222"),
        (ALICE, "333333"),
    ]


async def test_people_see_a_table(tmp_path) -> None:
    await send(tmp_path, ALICE, "111111")

    shown = run(tmp_path).stdout

    assert ALICE in shown
    assert "111111" in shown


def test_where_no_code_was_sent_it_says_so(tmp_path) -> None:
    assert json.loads(run(tmp_path, "--json").stdout) == []
    assert "no code" in run(tmp_path).stderr
