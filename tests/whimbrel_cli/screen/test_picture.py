"""The picture in the README is made by a command, from a conversation that was written before."""

import html
from pathlib import Path

from typer.testing import CliRunner

from whimbrel_cli.main import app


def test_the_picture_shows_the_conversation_and_fetches_nothing(tmp_path: Path) -> None:
    picture = tmp_path / "screen.svg"

    ended = CliRunner().invoke(app, ["chat", "--as", "alice", "--screenshot", str(picture)])

    shown = html.unescape(picture.read_text()).replace("\xa0", " ")
    assert ended.exit_code == 0
    assert all(words in shown for words in ("straight through the", "✓✓", "carol", "🎉"))
    assert "url(http" not in shown


def test_without_a_terminal_one_must_name_whom_to_talk_to() -> None:
    ended = CliRunner().invoke(app, ["chat", "--as", "alice"])

    assert ended.exit_code == 2
