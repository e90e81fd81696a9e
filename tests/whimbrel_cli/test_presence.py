"""`whimbrel presence`, as far as it goes without a mesh."""

import pytest
from typer.testing import CliRunner

from whimbrel_cli.main import app


@pytest.mark.parametrize(
    ("option", "allowed"),
    [("--to", "everyone, contacts, nobody"), ("--last-seen", "minute, hour, day")],
)
def test_a_choice_that_there_is_not_is_told_what_there_is(option: str, allowed: str) -> None:
    done = CliRunner().invoke(
        app, ["presence", "show", "--as", "alice", option, "everybody"], env={"COLUMNS": "200"}
    )

    assert done.exit_code == 2
    assert allowed in done.output
