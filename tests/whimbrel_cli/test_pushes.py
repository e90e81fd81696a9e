import json

from typer.testing import CliRunner

from whimbrel_cli.main import app
from whimbrel_cli.providers.arrivals import Arrivals
from whimbrel_cli.stack.environment import pushes_file


def run(data, *arguments):
    result = CliRunner().invoke(app, ["pushes", "--data", str(data), *arguments])
    assert result.exit_code == 0, result.output
    return result


async def test_it_shows_what_has_arrived_and_no_token(tmp_path) -> None:
    arrivals = Arrivals(pushes_file(tmp_path))
    await arrivals.add("apns", "canary-token", b'{"aps": {}}', is_urgent=True)
    await arrivals.add("fcm", "another", b"{}", is_urgent=False)

    shown = [json.loads(line) for line in run(tmp_path, "--json").stdout.splitlines()]
    table = run(tmp_path).stdout

    assert [(one["provider"], one["is_urgent"]) for one in shown] == [
        ("apns", True),
        ("fcm", False),
    ]
    assert "rings" in table
    assert "quiet" in table
    assert "canary" not in table + json.dumps(shown)


def test_nothing_is_said_so(tmp_path) -> None:
    assert "nothing was pushed yet" in run(tmp_path).output
