"""How much of the past a new device is to get, as a person says it."""

from datetime import timedelta

import pytest
import typer

from whimbrel_cli.history import span_of


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("all", timedelta.max),
        ("none", timedelta(0)),
        ("1d", timedelta(days=1)),
        ("30d", timedelta(days=30)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_all_none_and_a_number_of_days_are_understood(text: str, span: timedelta) -> None:
    assert span_of(text) == span


@pytest.mark.parametrize("text", ["", "d", "30", "0d", "-1d", "1.5d", "36501d", "٣d", "ALL"])
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="allowed: all, none, or days, as in 30d"):
        span_of(text)
